//! A batch whose rows are single frames at timesteps of their own.

use crate::{
    error::{ModelError, Result},
    reference::{ProjectedBank, Reference},
    stack::{Stack, Text},
};
use tch::{Kind, Tensor};

impl Stack {
    /// The U-Net's answers to noisy `latents` `[n, c, 1, h, w]`, row by row at timesteps `t` `[n]` (int64, on the
    /// stack's device), with the poses `embedded` `[n, c0, h, w]` and the reference's rows in `bank`; guided, in
    /// float32. No row sees another.
    ///
    /// # Errors
    /// [`ModelError::Input`] for shapes that do not fit together.
    pub fn rows(
        &self,
        latents: &Tensor,
        t: &Tensor,
        embedded: &Tensor,
        bank: &ProjectedBank,
        guidance: f64,
    ) -> Result<Tensor> {
        let [rows, _, 1, _, _] = latents.size()[..] else {
            let size = latents.size();
            return Err(ModelError::Input(format!("latents of shape {size:?}, needed: [n, c, 1, h, w]")));
        };
        let (Text { conditional, unconditional }, reference) = (&self.text, Reference::projected(bank));
        let frames = latents.squeeze_dim(2);
        let residuals = self.controlnet.forward(&frames, t, conditional, embedded, 1.0)?;
        let steering = Some(&residuals);
        if guidance <= 1.0 {
            let answer =
                self.unet.forward_after(latents, t, conditional, steering, Some(&reference), None)?;
            return Ok(answer.to_kind(Kind::Float));
        }
        let (latents, t) = (Tensor::cat(&[latents, latents], 0), Tensor::cat(&[t, t], 0));
        let each = |text: &Tensor| text.expand([rows, -1, -1], false);
        let text = Tensor::cat(&[each(unconditional), each(conditional)], 0);
        let reference = reference.after(rows);
        let both = self.unet.forward_after(&latents, &t, &text, steering, Some(&reference), None)?;
        let both = both.to_kind(Kind::Float);
        let (unconditional, conditional) = (both.narrow(0, 0, rows), both.narrow(0, rows, rows));
        Ok(&unconditional + (conditional - &unconditional) * guidance)
    }
}

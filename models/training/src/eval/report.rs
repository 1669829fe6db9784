//! What `keyframed-train eval` prints.

use super::{quality::Quality, real::Followed, trade_off::Point};
use serde::Serialize;
use std::fmt::{Display, Formatter, Result};

/// One way of sampling.
#[derive(Debug, Serialize)]
pub struct Way {
    /// Steps and sampler.
    pub name: String,
    /// On gallery avatars.
    pub gallery: Quality,
    /// On people that training never saw.
    pub unseen: Quality,
    /// Mean ΔE of the parts' colours against the reference, gallery avatars.
    pub colour_gallery: f64,
    /// The same on unseen people.
    pub colour_unseen: f64,
}

/// The middle of gaps between rendered pictures.
#[derive(Debug, Serialize)]
pub struct Gap {
    /// Made by FILM.
    pub film: Quality,
    /// The same by cross-fade.
    pub cross_fade: Quality,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The model's name.
    pub model: String,
    /// Picture side.
    pub size: usize,
    /// Gallery avatars, and as many unseen people.
    pub people: usize,
    /// Pictures of each.
    pub poses: usize,
    /// Heads that are large enough for a face.
    pub faces: usize,
    /// Ways of sampling.
    pub ways: Vec<Way>,
    /// Mean change from frame to frame, as a multiple of the truth's, gallery avatars.
    pub flicker_gallery: f64,
    /// The same for unseen people.
    pub flicker_unseen: f64,
    /// In-betweens of key poses as stage 1 selects them.
    pub film: Gap,
    /// In-betweens of pictures any 80 to 400 ms apart.
    pub film_any: Gap,
    /// Real clips.
    pub clips: Vec<Followed>,
    /// λ against quality, key frames and time.
    pub trade_off: Vec<Point>,
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> Result {
        let Self { model, size, people, poses, .. } = self;
        writeln!(
            f,
            "{model} {size}x{size}: {people} gallery avatars and {people} unseen people, {poses} pictures each"
        )?;
        for (who, of) in [("gallery", true), ("unseen", false)] {
            writeln!(
                f,
                "\n{who:<36}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}",
                "PSNR", "person", "SSIM", "edges", "sharp", "ΔE"
            )?;
            for way in &self.ways {
                let (quality, colour) =
                    if of { (&way.gallery, way.colour_gallery) } else { (&way.unseen, way.colour_unseen) };
                writeln!(f, "  {:<34}{}{colour:>8.1}", way.name, columns(quality))?;
            }
        }
        writeln!(f, "\n{} heads of 48 pixels or more on the sheet of faces", self.faces)?;
        for (what, gap) in [("of key poses as selected", &self.film), ("80 to 400 ms apart", &self.film_any)]
        {
            writeln!(f, "\nin-betweens {what}")?;
            writeln!(f, "  {:<34}{}", "FILM", columns(&gap.film))?;
            writeln!(f, "  {:<34}{}", "cross-fade", columns(&gap.cross_fade))?;
        }
        writeln!(f, "\nchange from frame to frame, times the truth's")?;
        writeln!(f, "  gallery {:.2}, unseen {:.2}", self.flicker_gallery, self.flicker_unseen)?;
        if !self.clips.is_empty() {
            writeln!(f, "\nsilhouette against the pose, intersection over union")?;
        }
        for clip in &self.clips {
            writeln!(f, "  {:<34}{:>8.3}  ({} frames)", clip.clip, clip.silhouette_iou, clip.frames)?;
        }
        writeln!(f, "\n{:<12}{:>12}{:>8}{:>8}{:>14}", "λ", "key ratio", "PSNR", "SSIM", "ms a frame")?;
        for p in &self.trade_off {
            let ms = p.seconds_per_frame * 1e3;
            writeln!(f, "{:<12}{:>12.2}{:>8.2}{:>8.3}{ms:>14.1}", p.lambda, p.key_ratio, p.psnr, p.ssim)?;
        }
        Ok(())
    }
}

fn columns(q: &Quality) -> String {
    format!("{:>8.2}{:>8.2}{:>8.3}{:>8.2}{:>8.2}", q.psnr, q.psnr_person, q.ssim, q.edge_error, q.sharpness)
}

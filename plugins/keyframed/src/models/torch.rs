//! Models on libtorch.
use std::path::PathBuf;

use keyframed_engine::{Frame, GenerateError, Interpolator, KeyframeGenerator, Nanos, Unfinished};
use keyframed_models::{
    FilmInterpolator, LcmGenerator, ModelDir, ModelError, PipelinedGenerator, Placement, Settings,
    device::{Work, share},
    stack::check_prompt,
};

use crate::lcmanimate::{ContextMode, Schedule};

use super::{Animator, LoadResult, OpenModel, Tuning, describe};

/// Opens a model by name or directory. Reads its description only.
pub fn open(model: &str) -> LoadResult<Box<dyn OpenModel>> {
    let dir = ModelDir::find(model).map_err(|e| describe(&e))?;
    Ok(Box::new(Opened(dir)))
}

/// FILM of a model.
pub fn film(model: &str, device: &str) -> LoadResult<Box<dyn Interpolator>> {
    let dir = ModelDir::find(model).map_err(|e| describe(&e))?;
    // The golden tests hold FILM in float32; flow at reduced precision is not worth the seams it may leave.
    let film =
        FilmInterpolator::new(&dir, placement(device, "f32", Work::InBetweens)?).map_err(|e| describe(&e))?;
    Ok(Box::new(film))
}

struct Opened(ModelDir);

impl OpenModel for Opened {
    fn size(&self) -> (u32, u32) {
        let image = self.0.manifest().image;
        (image.width, image.height)
    }

    fn defaults(&self) -> Tuning {
        let Settings { steps, guidance_scale, lora_scale, prompt, seed, context_frames, .. } =
            Settings::of(&self.0);
        let count = |n: usize| Some(u32::try_from(n).unwrap_or(u32::MAX));
        Tuning {
            steps: count(steps),
            guidance_scale: Some(guidance_scale),
            lora_scale: Some(lora_scale),
            prompt,
            context_frames: count(context_frames),
            context_mode: ContextMode::default(),
            seed,
        }
    }

    fn avatars(&self) -> PathBuf {
        self.0.dir().join("avatars")
    }

    fn check(&self, tuning: &Tuning, schedule: Schedule) -> LoadResult<()> {
        check_prompt(&self.0, &tuning.prompt).map_err(|e| describe(&e))?;
        match schedule {
            Schedule::Sequential => Ok(()),
            Schedule::Pipelined => {
                PipelinedGenerator::check(&self.0, &settings(&self.0, tuning)).map_err(|e| describe(&e))
            }
        }
    }

    fn load(
        &self,
        tuning: &Tuning,
        device: &str,
        dtype: &str,
        schedule: Schedule,
    ) -> LoadResult<Box<dyn Animator>> {
        let settings = settings(&self.0, tuning);
        let generator = LcmGenerator::new(&self.0, settings, placement(device, dtype, Work::KeyFrames)?);
        let generator = generator.map_err(|e| describe(&e))?;
        Ok(match schedule {
            Schedule::Sequential => Box::new(Lcm(generator)),
            Schedule::Pipelined => {
                Box::new(Pipelined(PipelinedGenerator::new(generator).map_err(|e| describe(&e))?))
            }
        })
    }
}

fn placement(device: &str, dtype: &str, work: Work) -> LoadResult<Placement> {
    let device = device.parse().map_err(|e: ModelError| describe(&e))?;
    let dtype = dtype.parse().map_err(|e: ModelError| describe(&e))?;
    Ok(Placement { device, dtype, threads: Some(share(work)) })
}

fn settings(model: &ModelDir, tuning: &Tuning) -> Settings {
    let default = Settings::of(model);
    let count = |n: Option<u32>, default| n.map_or(default, |n| n as usize);
    Settings {
        steps: count(tuning.steps, default.steps),
        guidance_scale: tuning.guidance_scale.unwrap_or(default.guidance_scale),
        lora_scale: tuning.lora_scale.unwrap_or(default.lora_scale),
        prompt: tuning.prompt.clone(),
        seed: tuning.seed,
        context_frames: count(tuning.context_frames, default.context_frames),
        context_mode: match tuning.context_mode {
            ContextMode::Cache => keyframed_models::ContextMode::Cache,
            ContextMode::Recompute => keyframed_models::ContextMode::Recompute,
        },
    }
}

/// One key frame after the other.
struct Lcm(LcmGenerator);

impl Animator for Lcm {
    fn tune(&mut self, tuning: &Tuning) -> LoadResult<()> {
        let settings = settings(self.0.model(), tuning);
        if settings == *self.0.settings() { Ok(()) } else { self.0.set(settings).map_err(|e| describe(&e)) }
    }

    fn set_reference(&mut self, reference: &Frame) -> Result<(), GenerateError> {
        self.0.set_reference(reference)
    }

    fn begin(&mut self, pose: &Frame, pts: Nanos) -> Result<Option<Unfinished>, GenerateError> {
        self.0.begin(pose, pts).map(Some)
    }

    fn begin_rest(&mut self) -> Result<Option<Unfinished>, GenerateError> {
        Ok(None)
    }

    fn reset(&mut self) {
        self.0.reset();
    }
}

/// As many side by side as there are steps.
struct Pipelined(PipelinedGenerator);

impl Animator for Pipelined {
    fn tune(&mut self, tuning: &Tuning) -> LoadResult<()> {
        let settings = settings(self.0.generator().model(), tuning);
        let same = settings == *self.0.generator().settings();
        if same { Ok(()) } else { self.0.set(settings).map_err(|e| describe(&e)) }
    }

    fn set_reference(&mut self, reference: &Frame) -> Result<(), GenerateError> {
        self.0.set_reference(reference).map_err(failed)
    }

    fn begin(&mut self, pose: &Frame, pts: Nanos) -> Result<Option<Unfinished>, GenerateError> {
        self.0.begin(pose, pts).map_err(failed)
    }

    fn begin_rest(&mut self) -> Result<Option<Unfinished>, GenerateError> {
        self.0.begin_rest().map_err(failed)
    }

    fn reset(&mut self) {
        self.0.reset();
    }
}

fn failed(error: ModelError) -> GenerateError {
    GenerateError::Failed(Box::new(error))
}

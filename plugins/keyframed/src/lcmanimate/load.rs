//! Loading: the model's description and the reference at start, the weights on a thread of their own.
use std::{fs, path::PathBuf, sync::Arc};

use gst::{prelude::*, subclass::prelude::*};
use keyframed_engine::Frame;

use super::{
    imp::{CAT, LcmAnimate},
    maker::Maker,
    state::{State, Worker},
};
use crate::{
    loading::Loading,
    models::{self, OpenModel},
    reference,
};

impl LcmAnimate {
    /// Opens the model and the reference, and starts reading the weights.
    pub(super) fn prepare(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings();
        let model: Arc<dyn OpenModel> = models::open(&settings.model)
            .map_err(|err| gst::error_msg!(gst::ResourceError::OpenRead, ("{err}")))?
            .into();
        let reference = find_reference(settings.reference.as_deref(), model.as_ref())
            .map_err(|err| gst::error_msg!(gst::ResourceError::NotFound, ("{err}")))?;
        let arriving = self.load(model.clone())?;
        let state = State::new(model, Some(reference));
        let (mailbox, slot) = (state.mailbox.clone(), state.slot.clone());
        let worker = Worker { arriving: Some(arriving), animator: None, epoch: 0, tuned: None, costs: 0 };
        let maker = Maker::start(self, worker, mailbox, slot).map_err(|err| {
            gst::error_msg!(gst::CoreError::Thread, ("Cannot start the thread that makes key frames: {err}"))
        })?;
        *self.state() = Some(state);
        drop(self.set_maker(Some(maker)));
        Ok(())
    }

    fn load(
        &self,
        model: Arc<dyn OpenModel>,
    ) -> Result<Loading<Box<dyn models::Animator>>, gst::ErrorMessage> {
        let settings = self.settings();
        let this = self.obj().downgrade();
        let progress = move |kind, text: &str| {
            if let Some(this) = this.upgrade() {
                let message = gst::message::Progress::builder(kind, "load-model", text).src(&this).build();
                let _ = this.post_message(message);
            }
        };
        let load = move || {
            progress(gst::ProgressType::Start, &format!("Loading the model {}", settings.model));
            let loaded = model.load(&settings.tuning, &settings.device, settings.dtype.name());
            match &loaded {
                Ok(_) => progress(gst::ProgressType::Complete, "The model is loaded"),
                Err(err) => progress(gst::ProgressType::Error, err),
            }
            loaded
        };
        Loading::start("lcm-load", load)
            .map_err(|err| gst::error_msg!(gst::CoreError::Thread, ("Cannot start the loader: {err}")))
    }

    /// Changes the reference. While running it is decoded first, and if that fails the old one stays.
    pub(super) fn set_reference(&self, name: Option<String>) {
        let model = self.state().as_ref().map(|state| state.model.clone());
        if let Some(model) = model {
            match find_reference(name.as_deref(), model.as_ref()) {
                Ok(reference) => {
                    if let Some(state) = self.state().as_mut() {
                        state.next_reference = Some(reference);
                    }
                }
                Err(err) => {
                    gst::debug!(CAT, imp = self, "Reference {name:?} refused: {err}");
                    gst::element_imp_warning!(
                        self,
                        gst::ResourceError::NotFound,
                        ("{err}. The old reference stays")
                    );
                    return;
                }
            }
        }
        self.change_settings(|settings| settings.reference = name);
    }
}

fn find_reference(name: Option<&str>, model: &dyn OpenModel) -> Result<(Frame, PathBuf), String> {
    let path = reference::find(name, &model.avatars())?;
    let frame = reference::load(&path)?;
    // The name of a descriptor means something else tomorrow.
    let real = path.starts_with("/proc/self/fd").then(|| fs::read_link(&path).ok()).flatten();
    Ok((frame, real.unwrap_or(path)))
}

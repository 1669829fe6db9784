//! What a new configuration changes: which parts are started anew, which take the change while they run, and what
//! must wait for the next start.

use std::path::PathBuf;

use keyframed_control::types::{Params, Reloaded};

use super::params;
use crate::config::resolved::{Config, Log};

/// The difference that a new configuration makes to a running daemon.
#[derive(Debug, PartialEq)]
pub struct Changes {
    /// Pipeline to run from now on.
    pub pipeline: String,
    /// The canvas changes, and with it everything.
    pub video: bool,
    /// The source is another one, or a changed one.
    pub source: bool,
    /// The networks change.
    pub animation: bool,
    /// Parameters from now on.
    pub params: Params,
    /// The reference changes to this; inner `None`: the model's first.
    pub reference: Option<Option<PathBuf>>,
    /// Outputs that end or change: to be stopped.
    pub stop: Vec<String>,
    /// Outputs that are new or changed: to be started when those are closed.
    pub start: Vec<String>,
    /// The slate changes.
    pub slate: bool,
    /// What is logged changes.
    pub log: bool,
    /// For the answer.
    pub summary: Reloaded,
}

impl Changes {
    /// From `old` to `new` while `running` runs, with `live` parameters.
    pub fn between(old: &Config, new: &Config, running: &str, live: &Params) -> Self {
        let stays = old.pipeline == new.pipeline && new.pipelines.contains_key(running);
        let pipeline = if stays { running } else { &new.pipeline };
        let was = old.pipelines.get(running);
        let is = new.pipelines.get(pipeline);
        let video = old.video != new.video;
        let source_of = |config: &Config, name: &str| {
            let name = &config.pipelines.get(name)?.source;
            Some((name.clone(), config.sources.get(name)?.clone()))
        };
        let source = source_of(old, running) != source_of(new, pipeline);
        let networks = was.zip(is).is_none_or(|(a, b)| !a.animation.has_same_networks(&b.animation));
        let params = match was.zip(is) {
            Some((was, is)) if pipeline == running => {
                params::merged(live, &was.animation.params, &is.animation.params)
            }
            _ => is.map_or(*live, |is| is.animation.params),
        };
        let picture =
            |of: Option<&crate::config::resolved::Pipeline>| of.and_then(|p| p.animation.reference.clone());
        // One that a client has chosen stays, unless it came with another model.
        let model = |of: Option<&crate::config::resolved::Pipeline>| of.map(|p| p.animation.model.clone());
        let is_another = pipeline != running || model(was) != model(is) || picture(was) != picture(is);
        let reference = is_another.then(|| picture(is));
        let changed = |name: &String| video || old.outputs.get(name) != new.outputs.get(name);
        let mut changes = Self {
            pipeline: pipeline.to_owned(),
            video,
            source,
            animation: video || networks,
            params,
            reference,
            stop: old.outputs.keys().filter(|name| changed(name)).cloned().collect(),
            start: new.outputs.keys().filter(|name| changed(name)).cloned().collect(),
            slate: video || old.slate != new.slate,
            log: old.log.level != new.log.level,
            summary: Reloaded::default(),
        };
        changes.summary = changes.summarize(old, new, running, live);
        changes
    }

    fn summarize(&self, old: &Config, new: &Config, running: &str, live: &Params) -> Reloaded {
        let listed = |all: &[(bool, &str)]| {
            all.iter().filter(|(is, _)| *is).map(|(_, name)| (*name).to_owned()).collect::<Vec<_>>()
        };
        let mut restarted = listed(&[(self.video, "video"), (self.animation, "animation")]);
        if let Some(pipeline) = new.pipelines.get(&self.pipeline).filter(|_| self.source) {
            restarted.push(format!("source {}", pipeline.source));
        }
        let mut outputs: Vec<_> = self.stop.iter().chain(&self.start).collect();
        outputs.sort();
        outputs.dedup();
        restarted.extend(outputs.into_iter().map(|name| format!("output {name}")));
        let applied = listed(&[
            (self.pipeline != running, "pipeline"),
            (old.pipelines != new.pipelines, "pipelines"),
            (self.params != *live, "params"),
            (self.reference.is_some(), "reference"),
            (old.gallery != new.gallery, "gallery"),
            (old.slate != new.slate, "slate"),
            (self.log, "log"),
        ]);
        let deferred = listed(&[
            (old.control != new.control, "control"),
            (old.metrics != new.metrics, "metrics"),
            ((old.log.target, old.log.json) != (new.log.target, new.log.json), "log"),
        ]);
        Reloaded { restarted, applied, deferred }
    }
}

impl Config {
    /// This one, but for what stays as it is in `running` until the next start: each reload tells of it again.
    pub fn with_deferred_of(self, running: &Self) -> Self {
        let log = Log { level: self.log.level, ..running.log.clone() };
        Self { control: running.control.clone(), metrics: running.metrics, log, ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use keyframed_control::types::MaxQuality;
    use keyframed_engine::Rate;

    use super::*;
    use crate::config::resolved::*;

    fn config() -> Config {
        let figure = |pattern: &str| Source {
            kind: SourceKind::TestFigure { pattern: pattern.into(), seed: 0, capture: Capture::default() },
            timeout: Duration::from_secs(3),
            retry: (Duration::from_secs(1), Duration::from_secs(10)),
        };
        let output = |port: u16| Output {
            kind: OutputKind::Udp { address: ([127, 0, 0, 1], port).into() },
            size: None,
            encoder: Encoder { bitrate_kbps: 1000, key_interval: Duration::from_secs(1) },
            timecode: false,
            retry: (Duration::from_secs(1), Duration::from_secs(10)),
        };
        let animation = Animation {
            model: "mini".into(),
            device: "cpu".into(),
            dtype: "f32".into(),
            context_mode: "cache".into(),
            schedule: "sequential".into(),
            prompt: String::new(),
            reference: None,
            params: params(),
        };
        let pipeline = |source: &str| Pipeline { source: source.into(), animation: animation.clone() };
        Config {
            file: None,
            video: Video { width: 64, height: 64, rate: Rate::new(25, 1).unwrap() },
            sources: BTreeMap::from([("a".into(), figure("walk")), ("b".into(), figure("dance"))]),
            pipelines: BTreeMap::from([("a".into(), pipeline("a")), ("b".into(), pipeline("b"))]),
            pipeline: "a".into(),
            gallery: Vec::new(),
            slate: Slate { picture: None, after: Duration::from_secs(5) },
            outputs: BTreeMap::from([("x".into(), output(5600)), ("y".into(), output(5601))]),
            control: Control {
                endpoint: "ipc:///c".into(),
                telemetry_endpoint: "ipc:///t".into(),
                tcp: None,
                telemetry_tcp: None,
                token: None,
                mode: 0o660,
            },
            metrics: None,
            log: Log { level: "info".into(), target: LogTarget::Auto, json: false },
        }
    }

    fn params() -> Params {
        Params {
            lambda: 0.01,
            window_frames: 12,
            target_key_rate_hz: 0.0,
            steps: None,
            guidance_scale: None,
            lora_scale: None,
            context_frames: None,
            seed: 0,
            latency_ms: 500,
            max_quality: MaxQuality::Film,
        }
    }

    /// What changes if `edit` is done to the configuration while pipeline a runs.
    fn changes(edit: impl Fn(&mut Config)) -> Changes {
        let mut new = config();
        edit(&mut new);
        Changes::between(&config(), &new, "a", &params())
    }

    fn pipeline(config: &mut Config) -> &mut Pipeline {
        config.pipelines.get_mut("a").unwrap()
    }

    #[test]
    fn nothing_changes_nothing() {
        let same = changes(|_| {});
        assert_eq!(same.summary, Reloaded::default());
        assert!(!same.video && !same.source && !same.animation && !same.slate && !same.log);
        assert!(same.stop.is_empty() && same.start.is_empty() && same.reference.is_none());
    }

    #[test]
    fn only_what_changed_is_started_anew() {
        let summary = |edit: fn(&mut Config)| changes(edit).summary;
        let restarted = |names: &[&str]| Reloaded {
            restarted: names.iter().map(|s| (*s).to_owned()).collect(),
            ..Reloaded::default()
        };
        assert_eq!(summary(|c| c.outputs.get_mut("y").unwrap().timecode = true), restarted(&["output y"]));
        assert_eq!(summary(|c| drop(c.outputs.remove("x"))), restarted(&["output x"]));
        let retimed = |c: &mut Config| c.sources.get_mut("a").unwrap().timeout = Duration::from_secs(9);
        assert_eq!(summary(retimed), restarted(&["source a"]));
        let other = |c: &mut Config| c.sources.get_mut("b").unwrap().timeout = Duration::from_secs(9);
        assert_eq!(summary(other), Reloaded::default(), "it does not run");
        assert_eq!(summary(|c| c.control.mode = 0o600).deferred, ["control"]);
        assert_eq!(summary(|c| c.log.level = "debug".into()).applied, ["log"]);
        assert_eq!(summary(|c| c.slate.after = Duration::ZERO).applied, ["slate"]);
        let model = changes(|c| pipeline(c).animation.model = "/m".into());
        assert_eq!(
            (&*model.summary.restarted, &model.reference),
            (&["animation".to_owned()][..], &Some(None))
        );
        let device = changes(|c| pipeline(c).animation.device = "auto".into());
        assert_eq!((&*device.summary.restarted, &device.reference), (&["animation".to_owned()][..], &None));
        let canvas = changes(|c| c.video.width = 128);
        assert_eq!(canvas.summary.restarted, ["video", "animation", "output x", "output y"]);
        assert_eq!((canvas.stop.len(), canvas.start.len(), canvas.slate), (2, 2, true));
    }

    #[test]
    fn what_waits_for_a_start_is_told_each_time() {
        let mut new = config();
        new.control.mode = 0o600;
        new.metrics = Some(([127, 0, 0, 1], 9000).into());
        (new.log.json, new.log.level) = (true, "debug".into());
        let mut running = config();
        for applied in [vec!["log".to_owned()], Vec::new()] {
            let summary = Changes::between(&running, &new, "a", &params()).summary;
            assert_eq!(summary.deferred, ["control", "metrics", "log"]);
            assert_eq!(summary.applied, applied);
            running = new.clone().with_deferred_of(&running);
        }
        let back =
            Changes::between(&running, &Config { log: running.log.clone(), ..config() }, "a", &params());
        assert_eq!(back.summary, Reloaded::default());
    }

    #[test]
    fn live_parameters_stay_unless_the_file_changes_them() {
        let mut new = config();
        pipeline(&mut new).animation.params.steps = Some(2);
        let live = Params { lambda: 0.5, ..params() };
        let changes = Changes::between(&config(), &new, "a", &live);
        assert_eq!(changes.params, Params { lambda: 0.5, steps: Some(2), ..params() });
        assert_eq!(changes.summary.applied, ["pipelines", "params"]);
        assert!(!changes.animation && !changes.source);
    }

    #[test]
    fn the_running_pipeline_stays_if_it_can() {
        let mut old = config();
        old.pipeline = "b".into();
        let run = |edit: fn(&mut Config)| {
            let mut new = old.clone();
            edit(&mut new);
            Changes::between(&old, &new, "a", &params())
        };
        assert_eq!(run(|_| {}).pipeline, "a", "it was chosen by a client");
        let gone = run(|c| drop(c.pipelines.remove("a")));
        assert_eq!(gone.pipeline, "b");
        assert!(gone.source && !gone.animation && gone.reference == Some(None));
        assert_eq!(run(|c| c.pipeline = "a".into()).pipeline, "a");
    }
}

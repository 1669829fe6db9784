//! LCM and DDIM against diffusers' numbers, step by step.

mod common;

use common::{assert_close, goldens_with, json, tensors};
use keyframed_models::scheduler::{
    BetaSchedule, DdimScheduler, LcmScheduler, NoiseSchedule, PredictionType, SamplerClass, Scheduler,
    SchedulerConfig, TimestepSpacing, build, build_at,
};
use serde_json::Value;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

const SINGLE: f64 = 2e-5;

fn lcm_config(facts: &Value) -> SchedulerConfig {
    serde_json::from_value(facts["lcm_config_defaults"].clone()).unwrap()
}

fn ddim_config(facts: &Value) -> SchedulerConfig {
    let config: SchedulerConfig = serde_json::from_value(facts["ddim_config"].clone()).unwrap();
    SchedulerConfig { class: SamplerClass::Ddim, ..config }
}

/// A word of a case's name as its configuration value.
fn word<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_value(Value::from(name)).unwrap()
}

#[test]
fn timesteps_are_those_of_the_originals() {
    let Some(folder) = goldens_with(&["schedulers.json"]) else { return };
    let facts = json(&folder.join("schedulers.json"));
    let cases = facts["timesteps"].as_object().unwrap();
    assert!(!cases.is_empty());
    for (name, wanted) in cases {
        let (kind, rest) = name.split_once(".n").unwrap();
        let (steps, strength) = rest.split_once(".strength").unwrap_or((rest, "1"));
        let (steps, strength) = (steps.parse().unwrap(), strength.parse().unwrap());
        let found = match kind {
            "lcm" => LcmScheduler::with_strength(&lcm_config(&facts), steps, strength)
                .unwrap()
                .timesteps()
                .to_vec(),
            _ => build(&ddim_config(&facts), steps).unwrap().timesteps().to_vec(),
        };
        assert_eq!(Value::from(found), *wanted, "{name}");
    }
}

#[test]
fn boundary_conditions_are_those_of_the_original() {
    let Some(folder) = goldens_with(&["schedulers.json"]) else { return };
    let facts = json(&folder.join("schedulers.json"));
    let cases = facts["cases"].as_object().unwrap();
    assert!(!cases.is_empty());
    for (name, case) in cases {
        let parts: Vec<&str> = name.split('.').collect();
        let (steps, index) =
            (parts[3][1..].parse().unwrap(), parts[4]["step".len()..].parse::<usize>().unwrap());
        let lcm = LcmScheduler::new(&lcm_config(&facts), steps).unwrap();
        let t = lcm.timesteps()[index];
        assert_eq!(t, case["t"].as_i64().unwrap(), "{name}");
        let (c_skip, c_out) = lcm.boundary(t);
        assert!((c_skip / case["c_skip"].as_f64().unwrap() - 1.0).abs() < 1e-6, "{name}");
        assert!((c_out - case["c_out"].as_f64().unwrap()).abs() < 1e-6, "{name}");
    }
}

#[test]
fn noise_schedules_are_those_of_the_original() {
    let Some(folder) = goldens_with(&["schedulers_io"]) else { return };
    let io = tensors(&folder.join("schedulers_io.safetensors"));
    for name in ["linear", "scaled_linear"] {
        let config = SchedulerConfig { beta_schedule: word(name), ..Default::default() };
        let schedule = NoiseSchedule::new(&config).unwrap();
        // Both are far below 1, where assert_close is absolute: compare the ratio.
        let exact =
            |found: &Tensor, wanted: &Tensor| assert_close(&(found / wanted), &wanted.ones_like(), 1e-6);
        exact(schedule.betas(), &io[&format!("lcm.{name}.betas")]);
        exact(schedule.alphas_cumprod(), &io[&format!("lcm.{name}.alphas_cumprod")]);
    }
    let config = SchedulerConfig { beta_schedule: BetaSchedule::Linear, ..Default::default() };
    let schedule = NoiseSchedule::new(&config).unwrap();
    let noisy = schedule.add_noise(&io["add_noise.x0"], &io["add_noise.noise"], &io["add_noise.t"]);
    assert_close(&noisy, &io["add_noise.linear.out"], SINGLE);
}

/// Runs a sampler over the stored network answers and compares every step.
fn run(scheduler: &dyn Scheduler, io: &BTreeMap<String, Tensor>, steps: usize, outputs: &str) -> usize {
    let mut sample = io[&format!("lcm.n{steps}.sample0")].shallow_clone();
    for index in 0..scheduler.timesteps().len() {
        let answer = &io[&format!("lcm.n{steps}.model_output{index}")];
        let noise = io.get(&format!("lcm.n{steps}.noise{index}"));
        let Some(wanted) = io.get(&format!("{outputs}.prev_sample{index}")) else { return index };
        let step = scheduler.step(answer, index, &sample, noise).unwrap();
        assert_close(&step.prev, wanted, SINGLE);
        if let Some(denoised) = io.get(&format!("{outputs}.denoised{index}")) {
            assert_close(&step.denoised, denoised, SINGLE);
        }
        sample = step.prev;
    }
    scheduler.timesteps().len()
}

#[test]
fn every_step_is_that_of_the_original() {
    let Some(folder) = goldens_with(&["schedulers.json", "schedulers_io"]) else { return };
    let facts = json(&folder.join("schedulers.json"));
    let io = tensors(&folder.join("schedulers_io.safetensors"));
    let mut compared = 0;
    let cases: Vec<&str> = io.keys().filter_map(|name| name.strip_suffix(".prev_sample0")).collect();
    for case in cases {
        let parts: Vec<&str> = case.split('.').collect();
        let (beta_schedule, prediction_type): (BetaSchedule, PredictionType) =
            (word(parts[1]), word(parts[2]));
        let steps = parts[3][1..].parse().unwrap();
        let clip_sample = parts.get(4) == Some(&"clip_sample");
        let config = if parts[0] == "lcm" { lcm_config(&facts) } else { ddim_config(&facts) };
        let config = SchedulerConfig { beta_schedule, prediction_type, clip_sample, ..config };
        let scheduler = build(&config, steps).unwrap();
        compared += run(scheduler.as_ref(), &io, steps, case);
    }
    let wanted = io.keys().filter(|name| name.contains(".prev_sample")).count();
    assert_eq!(compared, wanted);
}

/// With the true answer of each kind, one step finds the clean sample again.
#[test]
fn every_prediction_type_inverts_the_noising() {
    let options = (Kind::Float, Device::Cpu);
    let (clean, noise) = (Tensor::randn([2, 4, 1, 3, 3], options), Tensor::randn([2, 4, 1, 3, 3], options));
    let kinds = [PredictionType::Epsilon, PredictionType::VPrediction, PredictionType::Sample];
    for (prediction_type, zero_snr) in kinds.into_iter().zip([false, true, true]) {
        for class in [SamplerClass::Lcm, SamplerClass::Ddim] {
            let config = SchedulerConfig {
                class,
                prediction_type,
                rescale_betas_zero_snr: zero_snr,
                ..Default::default()
            };
            let scheduler = build_at(&config, vec![999, 600, 200]).unwrap();
            let schedule = scheduler.schedule();
            for (index, &t) in scheduler.timesteps().iter().enumerate() {
                let at = Tensor::from_slice(&[t, t]);
                let noisy = schedule.add_noise(&clean, &noise, &at);
                let answer = match prediction_type {
                    PredictionType::Epsilon => noise.shallow_clone(),
                    PredictionType::VPrediction => schedule.velocity(&clean, &noise, &at),
                    PredictionType::Sample => clean.shallow_clone(),
                };
                let step = scheduler.step(&answer, index, &noisy, Some(&noise)).unwrap();
                assert_close(&step.denoised, &clean, 2e-4);
                assert_close(&schedule.clean_of(&answer, &noisy, &at), &clean, 2e-4);
            }
        }
    }
}

#[test]
fn zero_snr_ends_in_pure_noise_and_keeps_the_start() {
    let config = SchedulerConfig { prediction_type: PredictionType::VPrediction, ..Default::default() };
    let plain = NoiseSchedule::new(&config).unwrap();
    let zero =
        NoiseSchedule::new(&SchedulerConfig { rescale_betas_zero_snr: true, ..config.clone() }).unwrap();
    assert_eq!(zero.alpha(999), 0.0);
    assert!((zero.alpha(0) - plain.alpha(0)).abs() < 1e-6);
    assert!((1..1000).all(|t| zero.alpha(t) < zero.alpha(t - 1)));
    let epsilon = PredictionType::Epsilon;
    let refused = SchedulerConfig { rescale_betas_zero_snr: true, prediction_type: epsilon, ..config };
    assert!(NoiseSchedule::new(&refused).is_err());
}

#[test]
fn spacings_cover_the_schedule() {
    let ddim = |timestep_spacing, steps| {
        let config = SchedulerConfig { class: SamplerClass::Ddim, timestep_spacing, ..Default::default() };
        DdimScheduler::new(&config, steps).unwrap().timesteps().to_vec()
    };
    assert_eq!(ddim(TimestepSpacing::Trailing, 4), [999, 749, 499, 249]);
    assert_eq!(ddim(TimestepSpacing::Trailing, 3), [999, 666, 332]);
    assert_eq!(ddim(TimestepSpacing::Linspace, 4), [999, 666, 333, 0]);
    assert_eq!(ddim(TimestepSpacing::Leading, 4), [750, 500, 250, 0]);
}

#[test]
fn impossible_requests_are_refused() {
    let config = SchedulerConfig::default();
    let bad = [vec![], vec![1000], vec![-1], vec![10, 10], vec![10, 20]];
    for timesteps in bad {
        assert!(build_at(&config, timesteps.clone()).is_err(), "{timesteps:?}");
    }
    assert!(build(&config, 0).is_err());
    assert!(build(&config, 51).is_err());
    assert!(NoiseSchedule::new(&SchedulerConfig { beta_start: 0.5, ..config.clone() }).is_err());
    assert!(NoiseSchedule::new(&SchedulerConfig { thresholding: true, ..config.clone() }).is_err());
    let trained_betas = Some(vec![0.1; 3]);
    assert!(NoiseSchedule::new(&SchedulerConfig { trained_betas, ..config.clone() }).is_err());
    let lcm = build(&config, 2).unwrap();
    let x = Tensor::zeros([1, 1, 1, 1, 1], (Kind::Float, Device::Cpu));
    assert!(lcm.step(&x, 0, &x, None).is_err(), "the first step needs noise");
    assert!(lcm.step(&x, 1, &x, None).is_ok(), "the last one does not");
    assert!(lcm.step(&x, 2, &x, None).is_err(), "there is no third");
}

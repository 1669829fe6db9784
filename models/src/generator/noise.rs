//! Seeded noise, the same on every machine and thread.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::f32::consts::TAU;
use tch::{Device, Tensor};

/// `count` tensors of standard normal noise of `shape`.
///
/// libtorch's own generator is one for the whole process: two generators
/// running at once would take each other's numbers.
pub(super) fn noise(seed: u64, count: usize, shape: [i64; 5], device: Device) -> Vec<Tensor> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let length = shape.iter().product::<i64>() as usize;
    let mut one = || {
        let values: Vec<f32> = (0..length).map(|_| normal(&mut rng)).collect();
        Tensor::from_slice(&values).view(shape).to_device(device)
    };
    (0..count).map(|_| one()).collect()
}

/// Box and Muller's transform, of which one of the two values is used.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let radius = (1.0 - rng.random::<f32>()).ln() * -2.0;
    radius.sqrt() * (rng.random::<f32>() * TAU).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn noise_is_normal_and_depends_on_the_seed_alone() {
        let make = |seed| noise(seed, 2, [1, 4, 1, 32, 32], Device::Cpu);
        let (a, b, other) = (make(1), make(1), make(2));
        assert!(a[0] == b[0] && a[1] == b[1]);
        assert!(a[0] != a[1] && a[0] != other[0]);
        let all = Tensor::cat(&a, 0);
        assert!(all.mean(Kind::Float).double_value(&[]).abs() < 0.05);
        assert!((all.std(true).double_value(&[]) - 1.0).abs() < 0.05);
        assert!(all.isfinite().all().int64_value(&[]) == 1);
    }
}

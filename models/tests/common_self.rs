//! The comparison itself must be able to fail.

mod common;

use common::assert_close;
use tch::Tensor;

#[test]
fn equal_tensors_are_close() {
    let a = Tensor::from_slice(&[1.0f32, -20.0]);
    assert_close(&a, &(&a + 1e-5), 2e-6);
}

#[test]
#[should_panic(expected = "scaled error")]
fn different_tensors_are_not() {
    assert_close(&Tensor::from_slice(&[1.0f32]), &Tensor::from_slice(&[1.001f32]), 1e-4);
}

#[test]
#[should_panic(expected = "scaled error")]
fn nan_is_not_close() {
    assert_close(&Tensor::from_slice(&[f32::NAN]), &Tensor::from_slice(&[1f32]), 1e-4);
}

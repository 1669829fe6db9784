use keyframed_models::torch_ext::{InferenceMode, channels_last, conv_packed, pack_conv};
use std::time::Instant;
use tch::{Device, Kind, Tensor};
fn time(mut f: impl FnMut()) -> f64 {
    for _ in 0..5 {
        f();
    }
    let mut v: Vec<f64> = (0..40)
        .map(|_| {
            let t = Instant::now();
            f();
            t.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    v.sort_by(f64::total_cmp);
    v[20]
}
fn main() {
    if let Some(n) = std::env::args().nth(1) {
        tch::set_num_threads(n.parse().unwrap());
    }
    println!("threads {}", tch::get_num_threads());
    let _g = InferenceMode::enter();
    let o = (Kind::Float, Device::Cpu);
    for (i, c, side, k) in [
        (64, 64, 32, 3),
        (128, 64, 32, 3),
        (96, 96, 16, 3),
        (256, 96, 16, 3),
        (160, 160, 16, 3),
        (160, 160, 8, 3),
        (96, 96, 16, 1),
        (16, 16, 256, 3),
        (32, 32, 128, 3),
        (64, 64, 64, 3),
    ] {
        let flop = 2.0 * (i * c * side * side * k * k) as f64;
        let mut line = format!("{i:4}->{c:4} {side:3}^2 k{k} {:6.1} MFLOP:", flop / 1e6);
        for kind in [Kind::Float, Kind::BFloat16] {
            let x = Tensor::randn([1, i, side, side], o).to_kind(kind);
            let w = (Tensor::randn([c, i, k, k], o) * 0.05).to_kind(kind);
            let b = Tensor::randn([c], o).to_kind(kind);
            let p = [k / 2; 2];
            let plain = time(|| {
                let _ = x.conv2d(&w, Some(&b), [1, 1], p, [1, 1], 1);
            });
            let (xc, wc) = (channels_last(&x), channels_last(&w));
            let cl = time(|| {
                let _ = xc.conv2d(&wc, Some(&b), [1, 1], p, [1, 1], 1);
            });
            let packed = pack_conv(&w, [1, 1], p, [1, i, side, side]).unwrap();
            let pk = time(|| {
                let _ = conv_packed(&xc, &packed, Some(&b), [1, 1], p).unwrap();
            });
            let diff = (conv_packed(&xc, &packed, Some(&b), [1, 1], p).unwrap()
                - xc.conv2d(&wc, Some(&b), [1, 1], p, [1, 1], 1))
            .abs()
            .max()
            .double_value(&[]);
            line += &format!(
                " {kind:?} plain {plain:6.0} us {:4.0} GF/s | cl {cl:6.0} {:4.0} | packed {pk:6.0} {:4.0} (diff {diff:.1e})",
                flop / plain / 1e3,
                flop / cl / 1e3,
                flop / pk / 1e3
            );
        }
        println!("{line}");
        let lin = Tensor::randn([side * side, i], o);
        let _ = lin;
    }
    for kind in [Kind::Float, Kind::BFloat16] {
        let x = channels_last(&Tensor::randn([1, 16, 256, 256], o).to_kind(kind));
        let w = Tensor::ones([16], o).to_kind(kind);
        println!(
            "{kind:?} group_norm {:.0} silu {:.0} add {:.0} us (16x256^2)",
            time(|| {
                let _ = x.group_norm(8, Some(&w), Some(&w), 1e-5, false);
            }),
            time(|| {
                let _ = x.silu();
            }),
            time(|| {
                let _ = &x + &x;
            })
        );
        let x = channels_last(&Tensor::randn([1, 64, 32, 32], o).to_kind(kind));
        let w = Tensor::ones([64], o).to_kind(kind);
        println!(
            "{kind:?} group_norm {:.0} silu {:.0} add {:.0} us (64x32^2)",
            time(|| {
                let _ = x.group_norm(16, Some(&w), Some(&w), 1e-5, false);
            }),
            time(|| {
                let _ = x.silu();
            }),
            time(|| {
                let _ = &x + &x;
            })
        );
        let x = Tensor::randn([1, 256, 96], o).to_kind(kind);
        let w = Tensor::randn([768, 96], o).to_kind(kind);
        println!(
            "{kind:?} linear 256x96->768 {:.0} us; gelu {:.0}",
            time(|| {
                let _ = x.linear(&w, None::<&Tensor>);
            }),
            time(|| {
                let _ = x.gelu("none");
            })
        );
    }
}

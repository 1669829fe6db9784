use keyframed_engine::{Frame, Interpolator};
use keyframed_models::{
    DtypeChoice, FilmInterpolator, ModelDir, Placement, stack::Stack, torch_ext::InferenceMode,
};
use std::time::Instant;
use tch::{Device, Kind, Tensor};
fn time(name: &str, n: usize, mut f: impl FnMut()) -> f64 {
    for _ in 0..3 {
        f();
    }
    let mut v: Vec<f64> = (0..n)
        .map(|_| {
            let t = Instant::now();
            f();
            t.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    v.sort_by(f64::total_cmp);
    println!("{name:28} median {:.1} ms  min {:.1}", v[n / 2], v[0]);
    v[n / 2]
}
fn main() {
    let dir = ModelDir::find("mini").unwrap();
    let dtype =
        if std::env::args().nth(1).as_deref() == Some("bf16") { DtypeChoice::Bf16 } else { DtypeChoice::F32 };
    if let Some(n) = std::env::args().nth(2) {
        tch::set_num_threads(n.parse().unwrap());
    }
    println!("threads {}", tch::get_num_threads());
    let place = Placement { dtype, ..Placement::default() }.resolve(64).unwrap();
    let _g = InferenceMode::enter();
    let stack = Stack::load(&dir, 1.0, place).unwrap();
    let _p = place.precision();
    let o = (Kind::Float, Device::Cpu);
    let pose = Tensor::rand([1, 3, 256, 256], o);
    let latents = Tensor::randn([1, 4, 1, 32, 32], o);
    let bank = stack.unet.project(&stack.features(&latents.squeeze_dim(2), 999).unwrap()).unwrap();
    let emb = stack.controlnet.embed_condition(&pose).unwrap();
    let n = 15;
    time("embed pose", n, || {
        let _ = stack.controlnet.embed_condition(&pose).unwrap();
    });
    time("controlnet", n, || {
        let _ = stack.residuals(&latents, 999, &emb, 1.0).unwrap();
    });
    let res = stack.residuals(&latents, 999, &emb, 1.0).unwrap();
    time("unet", n, || {
        let _ = stack.predict(&latents, 999, &res, &bank, false, None).unwrap();
    });
    let ops = |name: &str, f: &dyn Fn()| {
        let (_, mut l) = keyframed_models::torch_ext::operations(|| {
            for _ in 0..10 {
                f()
            }
        });
        l.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        println!("--{name} GFLOP {:.2}", l.iter().map(|c| c.flop).sum::<f64>() / 1e10);
        for c in l.iter().take(16) {
            println!(
                "   {:40} {:4} {:.2} ms {:.1} GF/s",
                c.name,
                c.calls / 10,
                c.seconds * 1e2,
                c.flop / c.seconds / 1e9
            );
        }
    };
    ops("unet", &|| {
        let _ = stack.predict(&latents, 999, &res, &bank, false, None).unwrap();
    });
    ops("controlnet", &|| {
        let _ = stack.residuals(&latents, 999, &emb, 1.0).unwrap();
    });
    ops("vae", &|| {
        let _ = stack.vae.decode(&latents.squeeze_dim(2));
    });
    time("vae decode", n, || {
        let _ = stack.vae.decode(&latents.squeeze_dim(2));
    });
    let x = Tensor::randn([1, 64, 32, 32], o);
    let w = Tensor::randn([64, 64, 3, 3], o);
    time("conv 64 32x32", 50, || {
        let _ = x.conv2d(&w, None::<&Tensor>, [1, 1], [1, 1], [1, 1], 1);
    });
    let x = Tensor::randn([1, 16, 256, 256], o);
    let w = Tensor::randn([16, 16, 3, 3], o);
    time("conv 16 256x256", 50, || {
        let _ = x.conv2d(&w, None::<&Tensor>, [1, 1], [1, 1], [1, 1], 1);
    });
    time("gn+silu 16 256", 50, || {
        let _ = x.group_norm(8, None::<&Tensor>, None::<&Tensor>, 1e-5, false).silu();
    });
    drop(_p);
    let mut film = FilmInterpolator::new(&dir, Placement::default()).unwrap();
    let fr = |s: u32| {
        Frame::new(256, 256, (0..256 * 256 * 3).map(|i| ((i * 7 + s) % 256) as u8).collect::<Vec<u8>>())
            .unwrap()
    };
    let mut i = 0;
    time("film new pair", n, || {
        i += 1;
        let (a, b) = (fr(i), fr(i + 1));
        film.interpolate(&a, &b, 0.5).unwrap();
    });
    let (a, b) = (fr(1), fr(2));
    time("film same pair", n, || {
        film.interpolate(&a, &b, 0.3).unwrap();
    });
}

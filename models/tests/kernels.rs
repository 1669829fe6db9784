//! The processor's own kernels against libtorch's operations, on shapes that do not divide evenly.
use keyframed_models::{
    Source,
    film::{Film, FilmConfig},
    kernels,
    nn::{Conv2d, DoublingConv, DoublingPad, GroupNorm},
    torch_ext::{channels_last, use_threads},
    vae::{AutoencoderKl, AutoencoderKlConfig},
};
use tch::{Device, Kind, Tensor};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Largest difference, as a share of the largest value.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    let largest = |t: &Tensor| t.abs().max().double_value(&[]);
    largest(&(a - b)) / largest(b).max(1e-9)
}

/// The network that `build` makes of the same random weights, with packed kernels and without.
fn both<T>(build: impl Fn(&Source) -> T) -> (T, T) {
    let fresh = Source::fresh(Device::Cpu);
    build(&fresh);
    let weights = || fresh.tensors().into_iter().map(|(k, t)| (k, t.detach() * 1.5 + 0.01)).collect();
    let source = || Source::loaded("random", weights(), Device::Cpu, Kind::Float);
    (build(&source().packed(Some(Kind::Float))), build(&source()))
}

#[test]
fn group_norm_agrees_whatever_the_shape() {
    tch::manual_seed(1);
    for (channels, groups, h, w) in
        [(16, 8, 64, 64), (6, 3, 5, 7), (160, 16, 3, 3), (1280, 32, 2, 5), (48, 4, 1, 1)]
    {
        let source = Source::fresh(Device::Cpu);
        GroupNorm::new(&source.root(), groups, channels, 1e-5).unwrap();
        let weights = source.tensors().into_iter().map(|(k, t)| (k, t.detach().uniform(-2.0, 2.0)));
        let source = Source::loaded("norm", weights.collect(), Device::Cpu, Kind::Float);
        let norm = GroupNorm::new(&source.root(), groups, channels, 1e-5).unwrap();
        // Far from zero, where sums of squares lose digits.
        let x = channels_last(&(Tensor::randn([2, channels, h, w], CPU) * 3.0 + 20.0));
        // libtorch's own, in double precision.
        let get = |name: &str| source.tensors()[name].to_kind(Kind::Double);
        let exact =
            x.to_kind(Kind::Double).group_norm(groups, Some(get("weight")), Some(get("bias")), 1e-5, false);
        let made = [norm.forward(&x), norm.forward_silu(&x)].map(|y| y.to_kind(Kind::Double));
        let far = [difference(&made[0], &exact), difference(&made[1], &exact.silu())];
        assert!(far.iter().all(|&d| d < 5e-6), "{channels} in {groups}: {far:?}");
    }
}

#[test]
fn threads_change_nothing() {
    tch::manual_seed(5);
    let x = channels_last(&Tensor::randn([2, 16, 97, 131], CPU));
    let flow = channels_last(&(Tensor::randn([2, 2, 97, 131], CPU) * 3.0));
    let weight = Tensor::ones([16], CPU);
    let made = |threads| {
        use_threads(threads);
        let norm = kernels::group_norm(&x, (&weight, &weight), 4, 1e-5, true).unwrap();
        (norm, kernels::join_warped(&x, &flow).unwrap(), kernels::finer(&flow).unwrap())
    };
    let alone = made(1);
    for threads in [2, 3] {
        let together = made(threads);
        assert!(difference(&together.0, &alone.0) < 1e-6);
        assert_eq!((together.1, together.2), (alone.1.copy(), alone.2.copy()), "{threads}");
    }
}

#[test]
fn kernels_refuse_what_does_not_fit() {
    let of = |shape: [i64; 4]| channels_last(&Tensor::zeros(shape, CPU));
    let (x, weight) = (of([2, 6, 4, 4]), Tensor::ones([6], CPU));
    for groups in [0, 4, -2] {
        assert!(kernels::group_norm(&x, (&weight, &weight), groups, 1e-5, false).is_none(), "{groups}");
    }
    assert!(kernels::group_norm(&x, (&weight, &Tensor::ones([5], CPU)), 3, 1e-5, false).is_none());
    assert!(kernels::join_warped(&x, &of([2, 2, 4, 3])).is_none());
    assert!(kernels::join_warped(&x, &of([1, 2, 4, 4])).is_none());
    assert!(kernels::join_warped(&of([3, 6, 4, 4]), &of([3, 2, 4, 4])).is_none());
    assert!(kernels::between(&x, &of([1, 2, 4, 4]), &of([1, 3, 4, 4]), 0.5).is_none());
    assert!(kernels::finer(&of([1, 3, 4, 4])).is_none());
    assert!(kernels::spread(&x, 1, 0).is_none(), "six channels are no four pixels");
    assert!(kernels::spread(&of([1, 8, 4, 4]), 1, 1).is_none());
}

#[test]
fn group_norm_keeps_what_is_no_number() {
    let source = Source::fresh(Device::Cpu);
    let norm = tch::no_grad(|| GroupNorm::new(&source.root(), 2, 4, 1e-5).unwrap());
    let x = channels_last(&Tensor::randn([1, 4, 8, 8], CPU));
    let _ = x.get(0).get(3).get(5).get(5).fill_(f64::NAN);
    let made = tch::no_grad(|| norm.forward_silu(&x));
    assert!(made.narrow(1, 0, 2).isfinite().all().int64_value(&[]) == 1, "the other group");
    assert!(made.narrow(1, 2, 2).isnan().all().int64_value(&[]) == 1);
}

#[test]
fn what_trains_takes_no_kernel_without_gradients() {
    let x = channels_last(&Tensor::randn([1, 4, 8, 8], CPU)).set_requires_grad(true);
    assert!(kernels::join(&[&x, &x]).is_none());
}

/// Against libtorch's own, in double precision.
#[test]
fn group_norm_gives_the_gradients_of_libtorch() {
    tch::manual_seed(7);
    for (channels, groups, h, w, silu) in
        [(48, 16, 9, 7, true), (16, 8, 40, 40, true), (128, 16, 8, 8, false), (6, 3, 5, 5, true)]
    {
        let source = Source::fresh(Device::Cpu);
        GroupNorm::new(&source.root(), groups, channels, 1e-5).unwrap();
        let tensors = source.tensors();
        tch::no_grad(|| tensors.values().for_each(|t| _ = t.shallow_clone().normal_(0.5, 1.0)));
        let x = channels_last(&(Tensor::randn([3, channels, h, w], CPU) * 2.0 + 1.0)).set_requires_grad(true);
        let back = Tensor::randn([3, channels, h, w], CPU);
        let affine = (&tensors["weight"], &tensors["bias"]);
        let y = kernels::group_norm(&x, affine, groups, 1e-5, silu).unwrap();
        (y * &back).sum(Kind::Float).backward();

        let wide = |t: &Tensor| t.detach().to_kind(Kind::Double).set_requires_grad(true);
        let (weight, bias, truth) = (wide(&tensors["weight"]), wide(&tensors["bias"]), wide(&x));
        let y = truth.group_norm(groups, Some(&weight), Some(&bias), 1e-5, false);
        let y = if silu { y.silu() } else { y };
        (y * back.to_kind(Kind::Double)).sum(Kind::Double).backward();
        for (ours, theirs) in [(&x, &truth), (&tensors["weight"], &weight), (&tensors["bias"], &bias)] {
            let theirs = theirs.grad();
            assert!(difference(&ours.grad().to_kind(Kind::Double), &theirs) < 2e-6, "{channels} {silu}");
        }
    }
}

#[test]
fn packed_convolutions_add_and_shift() {
    tch::manual_seed(2);
    for (inputs, outputs, side, stride) in [(3, 16, 3, 1), (5, 7, 3, 2), (64, 96, 1, 1), (16, 16, 3, 1)] {
        let build = |source: &Source| {
            Conv2d::with(&source.root(), inputs, outputs, side, stride, side / 2, true).unwrap()
        };
        let (packed, plain) = both(build);
        let x = Tensor::randn([2, inputs, 13, 9], CPU);
        let y = plain.forward(&x);
        assert!(difference(&packed.forward(&x), &y) < 1e-5);
        let other = Tensor::randn_like(&y);
        assert!(difference(&packed.forward_plus(&x, &other), &(&y + &other)) < 1e-5);
        for rows in [1, 2] {
            let shift = Tensor::randn([rows, outputs], CPU);
            let wanted = &y + shift.unsqueeze(-1).unsqueeze(-1);
            assert!(difference(&packed.forward_shifted(&x, &shift), &wanted) < 1e-5);
        }
        use kernels::Activation as A;
        for (activation, wanted) in
            [(A::Silu, y.silu()), (A::Relu, y.relu()), (A::Leaky, y.maximum(&(&y * 0.2)))]
        {
            assert!(difference(&packed.forward_then(&x, activation), &wanted) < 1e-5, "{activation:?}");
            assert!(difference(&plain.forward_then(&x, activation), &wanted) < 1e-6, "{activation:?}");
        }
    }
}

/// A small picture's deepest level; libtorch's fused sum fails on it.
#[test]
fn packed_convolutions_add_to_one_pixel() {
    tch::manual_seed(4);
    for (side, stride, size) in [(3, 1, 1), (1, 1, 1), (3, 2, 2)] {
        let build =
            |source: &Source| Conv2d::with(&source.root(), 24, 16, side, stride, side / 2, true).unwrap();
        let (packed, plain) = both(build);
        let x = Tensor::randn([3, 24, size, size], CPU);
        let y = plain.forward(&x);
        assert_eq!(y.size(), [3, 16, 1, 1]);
        let other = Tensor::randn_like(&y);
        assert!(difference(&packed.forward_plus(&x, &other), &(&y + &other)) < 1e-5, "{side} {stride}");
    }
}

/// Sizes come and go, as FILM's scales do, more of them than layouts are kept.
#[test]
fn one_packed_kernel_serves_pictures_of_many_sizes() {
    tch::manual_seed(6);
    let (packed, plain) = both(|source| Conv2d::new(&source.root(), 96, 32, 3).unwrap());
    for side in (4..=24).chain([8, 4, 24]) {
        let x = Tensor::randn([1, 96, side, side + 1], CPU);
        assert!(difference(&packed.forward(&x), &plain.forward(&x)) < 1e-5, "{side}");
    }
}

#[test]
fn doubling_convolutions_need_no_doubled_picture() {
    tch::manual_seed(3);
    for pad in [DoublingPad::Around, DoublingPad::After] {
        for (inputs, outputs) in [(5, 7), (64, 32), (16, 8)] {
            let (packed, plain) =
                both(|source| DoublingConv::new(&source.root(), inputs, outputs, pad).unwrap());
            let x = Tensor::randn([2, inputs, 6, 9], CPU);
            for size in [[12, 18], [11, 17]] {
                let (a, b) = (packed.forward(&x, size), plain.forward(&x, size));
                assert!(difference(&a, &b) < 1e-5, "{pad:?} {size:?}");
            }
        }
    }
}

#[test]
fn joined_tensors_lie_behind_each_other() {
    let part = |channels| channels_last(&Tensor::randn([2, channels, 5, 7], CPU));
    for channels in [[3, 8], [1, 2], [16, 24], [13, 64]] {
        let parts = channels.map(part);
        let joined = kernels::join(&[&parts[0], &parts[1]]).unwrap();
        assert_eq!(joined, Tensor::cat(&parts, 1));
    }
    assert!(kernels::join(&[&part(3), &Tensor::zeros([2, 3, 5, 8], CPU)]).is_none(), "other sizes");
}

#[test]
fn whole_networks_agree() {
    tch::manual_seed(4);
    let config = AutoencoderKlConfig {
        block_out_channels: vec![8, 12, 16],
        norm_num_groups: 4,
        layers_per_block: 1,
        ..AutoencoderKlConfig::default()
    };
    let (packed, plain) = both(|source| AutoencoderKl::new(&source.root(), &config).unwrap());
    let latents = Tensor::randn([1, 4, 9, 7], CPU);
    assert!(difference(&packed.decode(&latents), &plain.decode(&latents)) < 2e-5);
    let image = Tensor::rand([1, 3, 36, 20], CPU);
    assert!(difference(&packed.encode_moments(&image).mean, &plain.encode_moments(&image).mean) < 2e-5);

    let config = FilmConfig {
        flow_skips: 1,
        pyramid_levels: 4,
        fusion_pyramid_levels: 3,
        specialized_levels: 2,
        sub_levels: 3,
        filters: 8,
        flow_convs: vec![2, 2, 2],
        flow_filters: vec![8, 12, 16],
    };
    let (packed, plain) = both(|source| Film::new(&source.root(), &config).unwrap());
    let pictures = [0, 1].map(|_| Tensor::rand([2, 3, 40, 24], CPU));
    for t in [0.5, 0.2] {
        let made = packed.forward(&pictures[0], &pictures[1], t);
        assert!(difference(&made, &plain.forward(&pictures[0], &pictures[1], t)) < 2e-5);
    }
    // Plain libtorch, which training uses: the time as a tensor takes none of the kernels.
    let pyramids = pictures.each_ref().map(|picture| plain.pyramid(picture));
    let motion = plain.motion(&pyramids[0], &pyramids[1]);
    let trained = plain.at_each(&motion, &Tensor::full([1, 1, 1, 1], 0.2, CPU));
    let made = packed.forward(&pictures[0], &pictures[1], 0.2);
    assert!(difference(&made, &trained.image) < 2e-5);
}

/// Kernels in bfloat16: products have its eight bits, sums and what is added have all of float32's.
#[test]
fn convolutions_in_bfloat16_lose_digits_of_products_alone() {
    tch::manual_seed(9);
    let fresh = Source::fresh(Device::Cpu);
    let build = |source: &Source| {
        let conv =
            |name: &str, inputs, outputs| Conv2d::new(&(source.root() / name), inputs, outputs, 3).unwrap();
        (conv("wide", 32, 48), conv("end", 32, 3))
    };
    build(&fresh);
    let made = |packed| {
        let weights = fresh.tensors().into_iter().map(|(k, t)| (k, t.detach())).collect();
        build(&Source::loaded("random", weights, Device::Cpu, Kind::Float).packed(packed))
    };
    let (narrow, exact) = (made(Some(Kind::BFloat16)), made(None));
    let x = channels_last(&Tensor::randn([2, 32, 24, 17], CPU));
    let far = difference(&narrow.0.forward(&x), &exact.0.forward(&x));
    assert!((1e-4..1e-2).contains(&far), "{far}");
    assert_eq!(narrow.0.forward(&x).kind(), Kind::Float);
    // In bfloat16 a thousand and a half would be a thousand.
    let other = channels_last(&(Tensor::randn([2, 48, 24, 17], CPU) + 1000.0));
    let lost = (narrow.0.forward_plus(&x, &other) - exact.0.forward_plus(&x, &other)).abs().max();
    assert!(lost.double_value(&[]) < 0.05, "{lost:?}");
    // Where a network ends in a picture nothing is lost.
    let far = difference(&narrow.1.forward(&x), &exact.1.forward(&x));
    assert!(far < 1e-5, "{far}");
}

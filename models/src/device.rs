//! Where networks run, in which number format, on how many threads.

use crate::{
    error::{ModelError, Result},
    torch_cuda,
    torch_ext::{CpuAutocast, InferenceMode, use_threads},
};
use std::{
    ffi::{c_char, c_int, c_void},
    fmt, fs,
    str::FromStr,
    sync::{Once, OnceLock},
};
use tch::{Cuda, Device, Kind, Tensor};

/// A device as users name it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA device if there is one, else the processor.
    Auto,
    /// The processor.
    #[default]
    Cpu,
    /// A CUDA device by number.
    Cuda(usize),
}

impl DeviceChoice {
    /// The device, if this machine has it.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it has not.
    pub fn resolve(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto => Ok(if cuda_devices() > 0 { Device::Cuda(0) } else { Device::Cpu }),
            Self::Cuda(index) if index < cuda_devices() => Ok(Device::Cuda(index)),
            Self::Cuda(index) => {
                let found = cuda_devices();
                let reason = format!("device cuda:{index} does not exist: {found} CUDA devices were found");
                Err(ModelError::Config(reason))
            }
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            other => match other.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
                Some(index) => Ok(Self::Cuda(index)),
                None => Err(ModelError::Config(format!(
                    "device `{other}` is not known: there are auto, cpu, cuda and cuda:N"
                ))),
            },
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// A number format as users name it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DtypeChoice {
    /// bfloat16 on CUDA devices that have it, and where the processor is faster with it; else float32.
    Auto,
    /// 32 bits everywhere: what the golden tests hold.
    #[default]
    F32,
    /// On the processor convolutions and, in wide networks, matrix products in bfloat16, the rest in float32. On CUDA devices
    /// weights and activations of the generator's networks; sampling stays in float32.
    Bf16,
    /// float16 in the same way, on CUDA devices only.
    F16,
}

impl FromStr for DtypeChoice {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            other => Err(ModelError::Config(format!(
                "dtype `{other}` is not known: there are auto, f32, bf16 and f16"
            ))),
        }
    }
}

impl fmt::Display for DtypeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

/// Narrowest network whose matrix products `bf16` makes in bfloat16 on the processor: below, converting weights and
/// activations costs more than the products gain (measured with 48 to 128 channels on Sapphire Rapids).
const WIDE: i64 = 128;

/// What a user asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Placement {
    /// Where.
    pub device: DeviceChoice,
    /// In which number format.
    pub dtype: DtypeChoice,
    /// Threads of one operation on the processor; as many as there are cores if `None`.
    pub threads: Option<usize>,
}

impl Placement {
    /// Checks it against this machine. `width` is the network's narrowest level, in channels.
    ///
    /// # Errors
    /// [`ModelError::Config`].
    pub fn resolve(self, width: i64) -> Result<Place> {
        let device = self.device.resolve()?;
        let threads = self.threads.unwrap_or_else(cores);
        if !(1..=1024).contains(&threads) {
            return Err(ModelError::Config(format!("threads must be 1..1024, not {threads}")));
        }
        let (kind, products) = match device {
            Device::Cuda(index) => {
                // Every pass has the same shapes: trying cuDNN's kernels once pays.
                Cuda::cudnn_set_benchmark(true);
                torch_cuda::exact();
                (on_cuda(self.dtype, index, torch_cuda::has_bfloat16(index))?, Products::AsTheRest)
            }
            _ => (Kind::Float, on_processor(self.dtype, width)?),
        };
        Ok(Place { device, kind, products, threads })
    }
}

/// Number format of weights and activations on a CUDA device.
fn on_cuda(dtype: DtypeChoice, index: usize, has_bfloat16: bool) -> Result<Kind> {
    match dtype {
        DtypeChoice::F32 => Ok(Kind::Float),
        DtypeChoice::F16 => Ok(Kind::Half),
        DtypeChoice::Bf16 | DtypeChoice::Auto if has_bfloat16 => Ok(Kind::BFloat16),
        DtypeChoice::Auto => Ok(Kind::Float),
        DtypeChoice::Bf16 => Err(ModelError::Config(format!(
            "cuda:{index} is too old for dtype bf16 (compute capability 8 is needed): use f16 or f32"
        ))),
    }
}

/// Which products of a float32 network on the processor are made in bfloat16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Products {
    /// None.
    AsTheRest,
    /// Convolutions, with kernels that are converted once.
    Convolutions,
    /// Those, and matrix products by libtorch's autocast.
    All,
}

fn on_processor(dtype: DtypeChoice, width: i64) -> Result<Products> {
    let reduced = if width >= WIDE { Products::All } else { Products::Convolutions };
    match dtype {
        DtypeChoice::Bf16 => Ok(reduced),
        DtypeChoice::Auto if fast_bf16() => Ok(reduced),
        DtypeChoice::F32 | DtypeChoice::Auto => Ok(Products::AsTheRest),
        DtypeChoice::F16 => {
            Err(ModelError::Config("dtype f16 is for CUDA devices: use bf16 or f32 on the processor".into()))
        }
    }
}

/// A checked [`Placement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The device.
    pub device: Device,
    kind: Kind,
    products: Products,
    threads: usize,
}

impl Place {
    /// The processor, with weights and activations in `kind` as on CUDA devices. Slower than what `bf16` means
    /// there, but the same path through the networks: tests and `script/bench-gpu` compare with it.
    pub fn like_cuda(kind: Kind, threads: usize) -> Self {
        Self { device: Device::Cpu, kind, products: Products::AsTheRest, threads: threads.max(1) }
    }

    /// Dtype of the generator's weights and activations.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Dtype that convolutions run in, and the matrix products of wide networks.
    pub fn product_kind(&self) -> Kind {
        if self.products == Products::AsTheRest { self.kind } else { Kind::BFloat16 }
    }

    /// Whether convolutions run in 16 bits.
    pub fn is_reduced(&self) -> bool {
        self.product_kind() != Kind::Float
    }

    /// Dtype of convolutions' kernels in the processor library's own layout, where they gain from it.
    pub(crate) fn packs(&self) -> Option<Kind> {
        (self.device == Device::Cpu && self.kind == Kind::Float).then(|| self.product_kind())
    }

    /// The same with half the threads, for what runs beside.
    pub fn beside(&self) -> Self {
        Self { threads: (self.threads / 2).max(1), ..*self }
    }

    /// Threads of one operation.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Lets this thread run networks: without gradients, in the precision and on the threads asked for, until the
    /// value is dropped. (The number of threads stays.)
    pub fn enter(&self) -> Running {
        use_threads(self.threads);
        Running {
            _precision: (self.products == Products::All).then(CpuAutocast::enter),
            _inference: InferenceMode::enter(),
        }
    }
}

/// `x` as a network of `kind` takes it. Activations of a float32 network stay as they are: under autocast they
/// may be narrower already, and tests run networks on wider ones.
pub(crate) fn entering(x: &Tensor, kind: Kind) -> Tensor {
    if kind == Kind::Float { x.shallow_clone() } else { x.to_kind(kind) }
}

/// See [`Place::enter`].
pub struct Running {
    _precision: Option<CpuAutocast>,
    _inference: InferenceMode,
}

/// Work that runs beside other work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Key frames, which take most of the time. While one is denoised, the one before is decoded on
    /// [half as many threads](Place::beside).
    KeyFrames,
    /// In-betweens, beside them.
    InBetweens,
}

/// Threads for `work` while the other kind runs, too. Pools that together have more threads than there are cores
/// wait for each other at the end of every operation: on two cores that costs a factor of two. Pools of one thread
/// wait for nobody.
pub fn share(work: Work) -> usize {
    let cores = cores();
    match work {
        Work::KeyFrames => (cores / 2).max(1),
        Work::InBetweens => (cores / 4).max(1),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Whether the processor multiplies matrices of bfloat16 (AMX), which is clearly faster than float32. Those that have
/// nothing but vector instructions for it (AVX-512 BF16) can be half as fast. Not measured: what is made offline must not
/// depend on how busy a machine is.
fn fast_bf16() -> bool {
    static FAST: OnceLock<bool> = OnceLock::new();
    *FAST.get_or_init(|| {
        let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let flags = flags.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
        flags.split_whitespace().any(|flag| flag == "amx_bf16")
    })
}

/// Number of CUDA devices; 0 without a driver or without libtorch's CUDA part.
pub fn cuda_devices() -> usize {
    static LOADED: Once = Once::new();
    LOADED.call_once(load_cuda);
    usize::try_from(Cuda::device_count()).unwrap_or(0)
}

// SAFETY: as the C library declares it.
unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
}

/// libtorch registers its CUDA part when that library is loaded, and nothing
/// links to it: the same program runs with and without.
fn load_cuda() {
    const RTLD_NOW: c_int = 2;
    const RTLD_GLOBAL: c_int = 0x100;
    // SAFETY: the name is a terminated string; the library's initialisers are
    // libtorch's own, made to be run this way. A missing library gives null.
    let handle = unsafe { dlopen(c"libtorch_cuda.so".as_ptr(), RTLD_NOW | RTLD_GLOBAL) };
    tracing::debug!(found = !handle.is_null(), "looked for libtorch's CUDA part");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for name in ["auto", "cpu", "cuda:0", "cuda:3"] {
            assert_eq!(name.parse::<DeviceChoice>().map(|d| d.to_string()).ok().as_deref(), Some(name));
        }
        for name in ["auto", "f32", "bf16", "f16"] {
            assert_eq!(name.parse::<DtypeChoice>().map(|d| d.to_string()).ok().as_deref(), Some(name));
        }
        assert_eq!("cuda".parse::<DeviceChoice>().ok(), Some(DeviceChoice::Cuda(0)));
        for name in ["", "CPU", "cuda:", "cuda:x", "gpu"] {
            assert!(name.parse::<DeviceChoice>().is_err(), "{name}");
        }
        assert!("fp8".parse::<DtypeChoice>().is_err());
    }

    #[test]
    fn number_formats_follow_the_device() {
        use DtypeChoice as D;
        let cuda = |dtype, has_bfloat16| on_cuda(dtype, 0, has_bfloat16).ok();
        assert_eq!([D::Auto, D::Bf16].map(|d| cuda(d, true)), [Some(Kind::BFloat16); 2]);
        assert_eq!([D::Auto, D::Bf16].map(|d| cuda(d, false)), [Some(Kind::Float), None]);
        assert_eq!([D::F32, D::F16].map(|d| cuda(d, false)), [Some(Kind::Float), Some(Kind::Half)]);
        let cpu = |dtype| Placement { dtype, ..Placement::default() }.resolve(64).ok();
        assert_eq!(cpu(D::Bf16).map(|p| (p.kind(), p.product_kind())), Some((Kind::Float, Kind::BFloat16)));
        assert_eq!(cpu(D::F16), None);
        let native = Place::like_cuda(Kind::BFloat16, 1);
        assert!(native.is_reduced() && native.kind() == Kind::BFloat16 && native.device == Device::Cpu);
    }

    #[test]
    fn a_device_that_is_not_there_is_refused() {
        assert!(DeviceChoice::Cuda(cuda_devices()).resolve().is_err());
        assert_eq!(DeviceChoice::Cpu.resolve().ok(), Some(Device::Cpu));
        let none = Placement { threads: Some(0), ..Placement::default() };
        assert!(none.resolve(64).is_err());
        let auto = Placement { dtype: DtypeChoice::Auto, ..Placement::default() };
        for (width, products) in [(64, Products::Convolutions), (320, Products::All)] {
            let products = if fast_bf16() { products } else { Products::AsTheRest };
            assert_eq!(auto.resolve(width).ok().map(|place| place.products), Some(products));
        }
    }
}

//! Compiles the C++ shims and kernels against the same libtorch that `torch-sys` links, and
//! gives this crate's tests an rpath to it.
use std::{env, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=src/torch_ext.cc");
    println!("cargo:rerun-if-changed=src/torch_cuda.cc");
    println!("cargo:rerun-if-changed=src/kernels");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Ok(lib) = env::var("DEP_TCH_LIBTORCH_LIB") else {
        return;
    };
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    let root = PathBuf::from(&lib).parent().map(PathBuf::from).unwrap_or_default();
    cc::Build::new()
        .cpp(true)
        .pic(true)
        .warnings(false)
        .std("c++17")
        .flag("-D_GLIBCXX_USE_CXX11_ABI=1")
        // libtorch is built so, and some of its classes are larger without it.
        .define("NDEBUG", None)
        .opt_level(3)
        // Loops may be reordered into vectors as far as results do not depend on it.
        .flag("-fno-math-errno")
        .flag("-fno-trapping-math")
        .flag_if_supported("-Wno-psabi")
        .include(root.join("include"))
        .include(root.join("include/torch/csrc/api/include"))
        .file("src/torch_ext.cc")
        .file("src/torch_cuda.cc")
        .file("src/kernels/conv.cc")
        .file("src/kernels/norm.cc")
        .file("src/kernels/picture.cc")
        .compile("keyframed_torch_ext");
}

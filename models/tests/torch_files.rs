//! Files that PyTorch wrote (`torch/make.py`), sound, broken and hostile.

use keyframed_models::checkpoint::WeightFile;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Tensor};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch").join(name)
}

/// What `make.py` counts up.
fn numbers(size: &[i64], kind: Kind) -> Tensor {
    let count: i64 = size.iter().product();
    (Tensor::arange(count, (Kind::Float, Device::Cpu)) / 8.0).view(size).to_kind(kind)
}

fn refused(path: &Path) -> String {
    WeightFile::read(path).unwrap_err().to_string()
}

#[test]
fn tensors_of_all_kinds_and_views_are_read() {
    for name in ["state.pt", "nested.pt"] {
        let read = WeightFile::read(&file(name)).unwrap().tensors;
        let shared = numbers(&[6, 4], Kind::Float);
        let wanted = [
            ("brain", numbers(&[5], Kind::BFloat16)),
            ("conv.weight", numbers(&[2, 3, 1, 2], Kind::Float)),
            ("count", Tensor::from(7i64)),
            ("half", numbers(&[5], Kind::Half)),
            ("none", Tensor::zeros([0, 3], (Kind::Float, Device::Cpu))),
            ("part", shared.narrow(0, 2, 2).narrow(1, 1, 2)),
            ("turned", shared.tr()),
        ];
        assert_eq!(read.keys().collect::<Vec<_>>(), wanted.iter().map(|(key, _)| *key).collect::<Vec<_>>());
        for (key, wanted) in wanted {
            let found = &read[key];
            assert_eq!((found.kind(), found.size()), (wanted.kind(), wanted.size()), "{name} {key}");
            assert!(found.is_contiguous() && *found == wanted, "{name} {key}");
        }
    }
}

#[test]
fn a_torchscript_modules_tensors_have_their_attributes_names() {
    let read = WeightFile::read(&file("script.pt")).unwrap().tensors;
    let wanted = [
        ("grid", numbers(&[2, 2], Kind::Float)),
        ("inner.0.conv.bias", numbers(&[3], Kind::Half)),
        ("inner.0.conv.weight", numbers(&[3, 2, 1, 1], Kind::Half)),
    ];
    assert_eq!(read.len(), wanted.len());
    for (key, wanted) in wanted {
        assert!(read[key] == wanted, "{key}");
    }
}

#[test]
fn what_would_run_something_is_refused() {
    let said = refused(&file("evil.pt"));
    assert!(said.contains("`posix.system`") && said.contains("refused"), "{said}");
    let ran = std::env::temp_dir().join("keyframed-was-here");
    assert!(!ran.exists(), "{} exists", ran.display());
}

#[test]
fn old_and_compressed_files_say_so() {
    assert!(refused(&file("legacy.pt")).contains("before 1.6"));
    assert!(refused(&file("packed.pt")).contains("compress"));
}

/// Cut anywhere or with any byte changed, a file is read or refused: no panic, no hang, no endless memory.
#[test]
fn damaged_files_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.pt");
    let whole = fs::read(file("state.pt")).unwrap();
    for length in (0..whole.len()).step_by(37) {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(!refused(&path).is_empty());
    }
    let sound = WeightFile::read(&file("state.pt")).unwrap().tensors;
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        fs::write(&path, &damaged).unwrap();
        // Bytes without meaning lie between the entries; those that have one are checked.
        if let Ok(read) = WeightFile::read(&path) {
            assert!(read.tensors.iter().eq(sound.iter()), "byte {at} changed a tensor unnoticed");
        }
    }
}

/// A pickle in an archive as PyTorch writes them.
fn archive(pickle: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::with_suffix(".pt").unwrap();
    let mut zip = zip::ZipWriter::new(file.reopen().unwrap());
    let stored = zip::write::FileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", stored).unwrap();
    zip.write_all(pickle).unwrap();
    zip.finish().unwrap();
    file
}

/// A pickle of a dictionary with one tensor of float64, and a storage that claims to have `count` of them.
fn claim(name: &str, count: i64, size: i64, stride: i64) -> Vec<u8> {
    let text = |text: &str| [b"X", (text.len() as u32).to_le_bytes().as_slice(), text.as_bytes()].concat();
    let number = |n: i64| [b"\x8a\x08".as_slice(), &n.to_le_bytes()].concat();
    let mut pickle =
        [b"\x80\x02}".as_slice(), &text(name), b"ctorch._utils\n_rebuild_tensor_v2\n(("].concat();
    pickle.extend([text("storage"), b"ctorch\nDoubleStorage\n".to_vec(), text("0"), text("cpu")].concat());
    pickle.extend([number(count), b"tQK\0(".to_vec(), number(size), b"t(".to_vec(), number(stride)].concat());
    pickle.extend(b"ttRs.");
    pickle
}

#[test]
fn claims_of_enormous_tensors_are_refused() {
    for (count, size, stride) in [
        (i64::MAX, i64::MAX / 2, 1), // more bytes than a number can say
        (i64::MAX, i64::MAX / 2, 0),
        (i64::MAX, 2, i64::MAX / 2), // two elements, far apart
        (1 << 40, 1 << 40, 1),
    ] {
        let said = refused(archive(&claim("w", count, size, stride)).path());
        assert!(said.contains("many times the room"), "{said}");
    }
    for (count, size, stride, why) in [
        (4, 5, 1, "beyond its storage"),
        (4, 2, 4, "beyond its storage"),
        (4, 1 << 62, 0, "beyond its storage"),
        (4, i64::MAX, i64::MAX, "too large"),
        (-1, 1, 1, "storage is not described"),
    ] {
        let said = refused(archive(&claim("w", count, size, stride)).path());
        assert!(said.contains(why), "{said}");
    }
    // Many tensors with long names would take their names' room, not the file's.
    let said = refused(archive(&claim(&"n".repeat(600), 1, 1, 1)).path());
    assert!(said.contains("a name of 600 bytes"), "{said}");
}

#[test]
fn hostile_pickles_end() {
    // A tuple in a tuple in a tuple, two million deep; and one that is a dictionary's value.
    let nested = [b"\x80\x02)".as_slice(), &vec![0x85; 2_000_000], b"."].concat();
    assert!(refused(archive(&nested).path()).contains("no tensors"));
    // Thirty dictionaries, each of which has the next one three times.
    let mut shared = b"\x80\x02}q\x00".to_vec();
    for i in 1..30u8 {
        shared.extend([b'}', b'q', i]);
        for key in *b"abc" {
            shared.extend([b'X', 1, 0, 0, 0, key, b'h', i - 1, b's']);
        }
    }
    shared.push(b'.');
    assert!(refused(archive(&shared).path()).contains("too deep"));
    // Endless memory, a stack that is too short, a value that never was.
    for (pickle, said) in [
        (b"\x80\x02Nr\xff\xff\xff\x7f.".as_slice(), "remembers"),
        (b"\x80\x02R.".as_slice(), "more values"),
        (b"\x80\x02h\x07.".as_slice(), "recalls"),
        (b"\x80\x02cos\nsystem\n.".as_slice(), "`os.system`"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.".as_slice(), "`builtins.eval`"),
        (b"\x80\x02(I1\n.".as_slice(), "opcode"),
    ] {
        let message = refused(archive(pickle).path());
        assert!(message.contains(said), "{message}");
    }
}

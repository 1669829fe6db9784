//! Writes tensors as `torch.save` does: an archive of a pickle and one entry per storage.

use super::Failure;
use std::{fs::File, io::Write as _, path::Path};
use tch::{Kind, Tensor};
use zip::{CompressionMethod, ZipWriter, write::FileOptions};

/// Writes `{"state_dict": {key: tensor, …}}`.
pub fn write<'a>(file: &Path, tensors: impl Iterator<Item = (String, &'a Tensor)>) -> Result<(), Failure> {
    let tensors: Vec<_> = tensors.collect();
    let mut zip = ZipWriter::new(File::create(file)?);
    let stored = FileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    let mut pickle = b"\x80\x02}".to_vec();
    text(&mut pickle, "state_dict");
    pickle.extend(b"}(");
    for (number, (key, tensor)) in tensors.iter().enumerate() {
        text(&mut pickle, key);
        rebuilt(&mut pickle, tensor, number)?;
    }
    pickle.extend(b"us.");
    zip.start_file("archive/data.pkl", stored)?;
    zip.write_all(&pickle)?;
    zip.start_file("archive/byteorder", stored)?;
    zip.write_all(b"little")?;
    for (number, (_, tensor)) in tensors.iter().enumerate() {
        let count = tensor.numel();
        let mut bytes = vec![0; count * tensor.kind().elt_size_in_bytes()];
        tensor.contiguous().f_copy_data_u8(&mut bytes, count)?;
        zip.start_file(format!("archive/data/{number}"), stored)?;
        zip.write_all(&bytes)?;
    }
    zip.start_file("archive/version", stored)?;
    zip.write_all(b"3\n")?;
    zip.finish()?;
    Ok(())
}

/// `torch._utils._rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict())`.
fn rebuilt(pickle: &mut Vec<u8>, tensor: &Tensor, number: usize) -> Result<(), Failure> {
    let storage = match tensor.kind() {
        Kind::Float => "FloatStorage",
        Kind::Half => "HalfStorage",
        Kind::BFloat16 => "BFloat16Storage",
        other => return Err(format!("no storage for {other:?}").into()),
    };
    pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    text(pickle, "storage");
    pickle.extend(format!("ctorch\n{storage}\n").bytes());
    text(pickle, &number.to_string());
    text(pickle, "cpu");
    int(pickle, tensor.numel() as i64)?;
    pickle.extend(b"tQK\x00");
    let contiguous = tensor.contiguous();
    for list in [contiguous.size(), contiguous.stride()] {
        pickle.push(b'(');
        list.into_iter().try_for_each(|n| int(pickle, n))?;
        pickle.push(b't');
    }
    pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    Ok(())
}

fn text(pickle: &mut Vec<u8>, text: &str) {
    pickle.push(b'X');
    pickle.extend((text.len() as u32).to_le_bytes());
    pickle.extend(text.bytes());
}

fn int(pickle: &mut Vec<u8>, number: i64) -> Result<(), Failure> {
    pickle.push(b'J');
    pickle.extend(i32::try_from(number)?.to_le_bytes());
    Ok(())
}

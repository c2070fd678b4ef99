//! Files of tensors, read one tensor at a time, so that no network has to be in memory twice: safetensors, and
//! checkpoints of PyTorch ([`torch_file`]). Which of them a file is, its content says. Safetensors are written too.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use safetensors::tensor::{Metadata, TensorInfo};
use tch::{Device, Kind, Tensor};

use super::torch_file::{self, StridedView, TorchFile};
use crate::{
    error::{AtPath, Error, Result},
    plain_file,
};

/// The format's own limit on the length of a header, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorEntry {
    pub name: String,
    pub kind: Kind,
    pub shape: Vec<i64>,
    place: TensorPlace,
}

impl TensorEntry {
    /// How many values it has.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |product: u64, side| product.saturating_mul(side.unsigned_abs()))
    }
}

/// Where a tensor's bytes are.
#[derive(Debug, Clone, PartialEq)]
enum TensorPlace {
    /// From the end of the header.
    Range(usize, usize),
    View(StridedView),
}

/// A file of tensors. Its header, or a checkpoint's pickle, has been read and found to fit the file.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    container: TensorContainer,
    entries: Vec<TensorEntry>,
    metadata: HashMap<String, String>,
}

#[derive(Debug)]
enum TensorContainer {
    /// The header's length in the file.
    Safetensors(File, u64),
    Torch(TorchFile),
}

impl TensorFile {
    /// # Errors
    /// The file cannot be read, is cut short, is neither a safetensors file nor a checkpoint of PyTorch, or holds a
    /// type that libtorch's networks here do not use.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_part(path, None)
    }

    /// [`TensorFile::open`] for a checkpoint that holds several networks' weights: those under `key`.
    pub fn open_part(path: &Path, key: Option<&str>) -> Result<Self> {
        let mut file = plain_file::open(path).at_path(path, "cannot read the weights")?;
        let length = file.metadata().at_path(path, "cannot read the weights")?.len();
        let damaged = |why: String| {
            Error::input(format!("not a whole safetensors file: {why}"))
                .at(path)
                .help("copy or convert it again; checkpoints of PyTorch are read too")
        };
        if length < 8 {
            return Err(damaged(format!("it has {length} bytes")));
        }
        let mut first = vec![0; length.min(torch_file::FIRST_BYTES as u64) as usize];
        file.read_exact(&mut first).at_path(path, "cannot read the weights")?;
        if torch_file::is_checkpoint(&first) {
            return Self::of_checkpoint(path, TorchFile::open(file, path, key).map_err(|e| e.at(path))?);
        }
        if let Some(key) = key {
            return Err(Error::input(format!("a safetensors file has nothing under `{key}`, only tensors"))
                .at(path)
                .help("leave the key out"));
        }
        if first.starts_with(b"version ") {
            return Err(Error::input("a git-lfs pointer, not the weights themselves")
                .at(path)
                .help("fetch the file: git lfs pull"));
        }
        let header = first.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if header > length - 8 || header > LONGEST_HEADER {
            return Err(damaged(format!("a header of {header} bytes in a file of {length}")));
        }
        let mut text = vec![0; header as usize];
        file.seek(SeekFrom::Start(8))
            .and_then(|_| file.read_exact(&mut text))
            .at_path(path, "cannot read the weights")?;
        let metadata: Metadata = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
        let (claimed, there) = (metadata.data_len() as u64, length - 8 - header);
        if claimed != there {
            return Err(damaged(format!("its header names {claimed} bytes of tensors, it holds {there}")));
        }
        let mut entries = Vec::new();
        for name in metadata.offset_keys() {
            let Some(info) = metadata.info(&name) else { continue };
            let kind = kind(info.dtype).ok_or_else(|| {
                Error::input(format!("{name} has the type {:?}, which is not read here", info.dtype)).at(path)
            })?;
            let shape = info.shape.iter().map(|&n| n as i64).collect();
            let (from, to) = info.data_offsets;
            entries.push(TensorEntry { name, kind, shape, place: TensorPlace::Range(from, to) });
        }
        let metadata = metadata.metadata().clone().unwrap_or_default();
        let container = TensorContainer::Safetensors(file, 8 + header);
        Ok(Self { path: path.to_owned(), container, entries, metadata })
    }

    fn of_checkpoint(path: &Path, checkpoint: TorchFile) -> Result<Self> {
        let entry = |(name, view): &(String, StridedView)| TensorEntry {
            name: name.clone(),
            kind: view.kind(),
            shape: view.shape().to_vec(),
            place: TensorPlace::View(view.clone()),
        };
        let entries = checkpoint.tensors().iter().map(entry).collect();
        let container = TensorContainer::Torch(checkpoint);
        Ok(Self { path: path.to_owned(), container, entries, metadata: HashMap::new() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's own strings.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// The format's name, for people.
    pub fn format(&self) -> &'static str {
        match &self.container {
            TensorContainer::Safetensors(..) => "safetensors",
            TensorContainer::Torch(checkpoint) => checkpoint.container(),
        }
    }

    /// Of a checkpoint that holds more than weights: what was taken and what was passed over.
    pub fn note(&self) -> Option<&str> {
        match &self.container {
            TensorContainer::Safetensors(..) => None,
            TensorContainer::Torch(checkpoint) => checkpoint.note(),
        }
    }

    /// The tensors, in the order in which they lie in the file.
    pub fn entries(&self) -> &[TensorEntry] {
        &self.entries
    }

    /// Reads one of [`TensorFile::entries`] into the CPU's memory.
    pub fn read(&self, entry: &TensorEntry) -> Result<Tensor> {
        match (&self.container, &entry.place) {
            (TensorContainer::Safetensors(file, header), &TensorPlace::Range(from, to)) => {
                let mut buffer = vec![0; to.saturating_sub(from)];
                let mut file = file;
                file.seek(SeekFrom::Start(header + from as u64))
                    .and_then(|_| file.read_exact(&mut buffer))
                    .at_path(&self.path, "cannot read the weights")?;
                Ok(Tensor::f_from_data_size(&buffer, &entry.shape, entry.kind)?)
            }
            (TensorContainer::Torch(checkpoint), TensorPlace::View(view)) => {
                checkpoint.read(view).map_err(|e| e.at(&self.path))
            }
            _ => Err(Error::failure(format!("{} is a tensor of another file", entry.name)).at(&self.path)),
        }
    }
}

/// Writes the tensors of `from` to `path`, one at a time, as [`write()`] does.
pub fn convert(from: &TensorFile, path: &Path) -> Result<()> {
    let mut described = Vec::with_capacity(from.entries.len());
    for (number, entry) in from.entries.iter().enumerate() {
        described.push(WrittenTensor {
            dtype: dtype(entry.kind)?,
            name: &entry.name,
            shape: &entry.shape,
            number,
        });
    }
    let read = |number: usize| match from.entries.get(number) {
        Some(entry) => from.read(entry),
        None => Err(Error::failure("a tensor is missing")),
    };
    write_file(path, described, Some(pytorch_metadata()), &read)
}

/// Writes `tensors` under their names, each with its own type and from whatever device it is on, to
/// `path`, with the metadata (`format`: `pt`) that transformers and diffusers ask for. The file is not
/// put in place atomically: that is up to the caller.
pub fn write(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    write_with(path, tensors, pytorch_metadata())
}

fn pytorch_metadata() -> HashMap<String, String> {
    HashMap::from([("format".to_owned(), "pt".to_owned())])
}

/// [`write()`] with other metadata.
pub fn write_with(
    path: &Path,
    tensors: &[(String, Tensor)],
    metadata: HashMap<String, String>,
) -> Result<()> {
    let shapes = shapes(tensors);
    write_file(path, described(tensors, &shapes).map_err(|e| e.at(path))?, Some(metadata), &of(tensors))
}

/// The bytes that [`write_with`] writes; without `metadata` the header has none.
pub fn to_bytes(tensors: &[(String, Tensor)], metadata: Option<HashMap<String, String>>) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let shapes = shapes(tensors);
    write_each(described(tensors, &shapes)?, metadata, &of(tensors), &mut |bytes| {
        file.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(file)
}

/// What a header says of a tensor, and the number that it has where it comes from.
struct WrittenTensor<'a> {
    dtype: safetensors::Dtype,
    name: &'a str,
    shape: &'a [i64],
    number: usize,
}

fn shapes(tensors: &[(String, Tensor)]) -> Vec<Vec<i64>> {
    tensors.iter().map(|(_, tensor)| tensor.size()).collect()
}

fn described<'a>(tensors: &'a [(String, Tensor)], shapes: &'a [Vec<i64>]) -> Result<Vec<WrittenTensor<'a>>> {
    let all = tensors.iter().zip(shapes).enumerate();
    all.map(|(number, ((name, tensor), shape))| {
        Ok(WrittenTensor { dtype: dtype(tensor.kind())?, name, shape, number })
    })
    .collect()
}

fn of(tensors: &[(String, Tensor)]) -> impl Fn(usize) -> Result<Tensor> {
    |number| match tensors.get(number) {
        Some((_, tensor)) => Ok(tensor.shallow_clone()),
        None => Err(Error::failure("a tensor is missing")),
    }
}

fn write_file(
    path: &Path,
    tensors: Vec<WrittenTensor>,
    metadata: Option<HashMap<String, String>>,
    read: &dyn Fn(usize) -> Result<Tensor>,
) -> Result<()> {
    let cannot = "cannot write the weights";
    let mut file = BufWriter::new(File::create(path).at_path(path, cannot)?);
    let mut put = |bytes: &[u8]| file.write_all(bytes).at_path(path, cannot);
    write_each(tensors, metadata, read, &mut put).map_err(|e| e.at(path))?;
    let file = file.into_inner().map_err(|e| e.into_error()).at_path(path, cannot)?;
    file.sync_all().at_path(path, cannot)
}

/// Hands the bytes of a file to `put`, one tensor at a time. `read` gives a tensor by its number.
fn write_each(
    mut tensors: Vec<WrittenTensor>,
    metadata: Option<HashMap<String, String>>,
    read: &dyn Fn(usize) -> Result<Tensor>,
    put: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    // The format's own order: by alignment, then by name.
    tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then(a.name.cmp(b.name)));
    let mut end = 0;
    let mut infos = Vec::with_capacity(tensors.len());
    for tensor in &tensors {
        let start = end;
        let shape: Vec<usize> = tensor.shape.iter().map(|&n| n as usize).collect();
        end += shape.iter().product::<usize>() * tensor.dtype.bitsize() / 8;
        let info = TensorInfo { dtype: tensor.dtype, shape, data_offsets: (start, end) };
        infos.push((tensor.name.to_owned(), info));
    }
    let fail = |e: String| Error::failure(format!("cannot write safetensors: {e}"));
    let header = Metadata::new(metadata, infos).map_err(|e| fail(e.to_string()))?;
    let mut header = serde_json::to_vec(&header).map_err(|e| fail(e.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');

    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    let mut bytes = Vec::new();
    for described in tensors {
        let tensor = read(described.number)?.detach().f_to_device(Device::Cpu)?.f_contiguous()?;
        bytes.resize(tensor.numel() * tensor.kind().elt_size_in_bytes(), 0);
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        put(&bytes)?;
    }
    Ok(())
}

fn dtype(kind: Kind) -> Result<safetensors::Dtype> {
    use safetensors::Dtype as D;
    Ok(match kind {
        Kind::Float => D::F32,
        Kind::Double => D::F64,
        Kind::Half => D::F16,
        Kind::BFloat16 => D::BF16,
        Kind::Int64 => D::I64,
        Kind::Int => D::I32,
        Kind::Int16 => D::I16,
        Kind::Int8 => D::I8,
        Kind::Bool => D::BOOL,
        Kind::Uint8 => D::U8,
        other => return Err(Error::failure(format!("tensors of {other:?} are not written to safetensors"))),
    })
}

fn kind(dtype: safetensors::Dtype) -> Option<Kind> {
    use safetensors::Dtype as D;
    Some(match dtype {
        D::F32 => Kind::Float,
        D::F64 => Kind::Double,
        D::F16 => Kind::Half,
        D::BF16 => Kind::BFloat16,
        D::I64 => Kind::Int64,
        D::I32 => Kind::Int,
        D::I16 => Kind::Int16,
        D::I8 => Kind::Int8,
        D::BOOL => Kind::Bool,
        D::U8 => Kind::Uint8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    fn tensors() -> Vec<(String, Tensor)> {
        let values = Tensor::from_slice(&[1.5f32, -2.0, 0.25, 3.0, 4.0, 5.0]).view([2, 3]);
        vec![
            ("b.weight".to_owned(), values.to_kind(Kind::Half)),
            ("a.weight".to_owned(), values.to_kind(Kind::BFloat16)),
            ("turned".to_owned(), values.transpose(0, 1)),
            ("one".to_owned(), Tensor::from(7i64)),
        ]
    }

    /// The metadata has one entry: a map of several has no order of its own.
    #[test]
    fn files_are_read_again_and_are_those_of_the_safetensors_crate() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        write(&path, &tensors()).unwrap();
        let file = TensorFile::open(&path).unwrap();
        let names: Vec<&str> = file.entries().iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["one", "turned", "a.weight", "b.weight"]);
        let bytes = std::fs::read(&path).unwrap();
        let others = SafeTensors::deserialize(&bytes).unwrap();
        for (name, tensor) in tensors() {
            let entry = file.entries().iter().find(|e| e.name == name).unwrap();
            let read = file.read(entry).unwrap();
            assert_eq!((read.kind(), read.size()), (tensor.kind(), tensor.size()));
            assert_eq!(read, tensor, "{name}");
            let other = others.tensor(&name).unwrap();
            assert_eq!(Some(read.kind()), kind(other.dtype()));
            let shape: Vec<i64> = other.shape().iter().map(|&n| n as i64).collect();
            assert_eq!(Tensor::from_data_size(other.data(), &shape, read.kind()), tensor, "{name}");
        }
        assert_eq!(file.metadata()["format"], "pt");
        let pt = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        for metadata in [None, Some(pt.clone())] {
            let theirs = safetensors::serialize(others.tensors(), metadata.clone()).unwrap();
            assert_eq!(to_bytes(&tensors(), metadata).unwrap(), theirs);
        }
        assert_eq!(to_bytes(&tensors(), Some(pt)).unwrap(), bytes);
    }

    #[test]
    fn damage_is_found_before_a_tensor_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        write(&path, &tensors()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let with = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            TensorFile::open(&path).map(|_| ()).map_err(|e| e.to_string())
        };
        assert_eq!(with(&whole), Ok(()));
        let mut longer = whole.clone();
        longer.extend([0; 4]);
        let mut claims = whole.clone();
        claims[..8].copy_from_slice(&(whole.len() as u64).to_le_bytes());
        let mut huge = whole.clone();
        huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        let overlong = |text: &[u8]| [&(text.len() as u64).to_le_bytes()[..], text].concat();
        for (bytes, says) in [
            (&whole[..whole.len() - 1], "it holds"),
            (&longer, "it holds"),
            (&whole[..20], "a header of"),
            (&whole[..3], "3 bytes"),
            (&claims, "a header of"),
            (&huge, "a header of"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
            (&overlong(br#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#), "names 16 bytes"),
            (&overlong(br#"{"a":{"dtype":"F32","shape":[5],"data_offsets":[0,16]}}"#), "invalid"),
            (
                &overlong(br#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#),
                "overflow",
            ),
            (&overlong(b"{"), "not a whole safetensors file"),
        ] {
            let error = with(bytes).unwrap_err();
            assert!(error.contains(says) && error.contains("w.safetensors"), "{says}: {error}");
        }
    }
}

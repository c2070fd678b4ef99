//! Statistics of features as pytorch-fid keeps them: a NumPy archive (`.npz`) with `mu` (d,) and `sigma` (d, d), f64.
//!
//! `n` (a whole number, the images behind them) is written beside the two where it is known; pytorch-fid and clean-fid
//! pass over it, and write none.

use std::{
    io::{Read, Write},
    path::Path,
};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use rawzip::{CompressionMethod, ZipArchive, ZipArchiveWriter, ZipSliceArchive};
use tch::{Kind, Tensor};

use super::frechet::Statistics;
use crate::{
    error::{AtPath, Error, Result},
    plain_file,
};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Wider features than any extractor's: a header that claims more is not believed.
const MAX_D: usize = 1 << 14;

/// # Errors
/// The file cannot be read, is damaged, lacks `mu` or `sigma`, or their shapes, types or values are no
/// statistics.
pub fn read(file: &Path) -> Result<Statistics> {
    let bytes = plain_file::read(file).at_path(file, "cannot read the statistics")?;
    from_bytes(&bytes).map_err(|e| e.at(file))
}

/// # Errors
/// The statistics are not finite or of no fitting shapes, or the file cannot be written.
pub fn write(file: &Path, statistics: &Statistics) -> Result<()> {
    let bytes = to_bytes(statistics).map_err(|e| e.at(file))?;
    std::fs::write(file, bytes).at_path(file, "cannot write the statistics")
}

fn damaged(why: impl std::fmt::Display) -> Error {
    Error::input(format!("not a readable .npz of statistics: {why}"))
        .help("the file is damaged or something else: copy it again, or make it with `python -m pytorch_fid --save-stats`")
}

/// As [`read`], of the file's bytes.
///
/// # Errors
/// As [`read`].
pub fn from_bytes(bytes: &[u8]) -> Result<Statistics> {
    let archive = ZipArchive::from_slice(bytes).map_err(damaged)?;
    let needed = |key: &str| {
        member(&archive, key)?.ok_or_else(|| {
            Error::input(format!("the archive has no {key}.npy"))
                .help("statistics are `mu` and `sigma`, as pytorch-fid writes them with --save-stats")
        })
    };
    let (mu, sigma) = (needed("mu")?, needed("sigma")?);
    let &[d] = mu.shape.as_slice() else {
        return Err(damaged(format_args!("mu has the shape {:?}, not (d,)", mu.shape)));
    };
    if sigma.shape != [d, d] {
        return Err(damaged(format_args!("sigma has the shape {:?}, mu has {d} values", sigma.shape)));
    }
    let n = match member(&archive, "n").ok().flatten() {
        Some(Array { values, .. }) if values.len() == 1 && values[0] >= 2.0 && values[0].fract() == 0.0 => {
            Some(values[0] as u64)
        }
        // Other programs' n may mean something else: the number of images is then unknown.
        _ => None,
    };
    let d = d as i64;
    let mean = Tensor::f_from_slice(&mu.values)?;
    // In Fortran's order it is transposed, which a symmetric matrix does not show.
    let covariance = Tensor::f_from_slice(&sigma.values)?.f_view([d, d])?;
    let statistics = Statistics { n, mean, covariance };
    statistics.check("stored")?;
    Ok(statistics)
}

struct Array {
    shape: Vec<usize>,
    values: Vec<f64>,
}

/// The array `key`; `None` where the archive has none of that name.
fn member(archive: &ZipSliceArchive<&[u8]>, key: &str) -> Result<Option<Array>> {
    let name = format!("{key}.npy");
    let mut entries = archive.entries();
    while let Some(entry) = entries.next_entry().map_err(damaged)? {
        if entry.file_path().as_ref() != name.as_bytes() {
            continue;
        }
        let of_key = |e: Error| e.context(key);
        let file = archive.get_entry(entry.wayfinder()).map_err(|e| of_key(damaged(e)))?;
        let method = entry.compression_method();
        let found = if method == CompressionMethod::STORE {
            array(&mut file.verifying_reader(file.data()))
        } else if method == CompressionMethod::DEFLATE {
            array(&mut file.verifying_reader(DeflateDecoder::new(file.data())))
        } else {
            Err(damaged(format_args!("its compression is {method:?}")))
        };
        return found.map(Some).map_err(of_key);
    }
    Ok(None)
}

/// A `.npy` file (NumPy enhancement proposal 1), whole.
fn array(file: &mut impl Read) -> Result<Array> {
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(damaged)?;
    let mut length = [0; 4];
    match start {
        [.., 1, 0] if start.starts_with(MAGIC) => file.read_exact(&mut length[..2]).map_err(damaged)?,
        [.., 2 | 3, 0] if start.starts_with(MAGIC) => file.read_exact(&mut length).map_err(damaged)?,
        _ => return Err(damaged("it is not NumPy's format 1 to 3")),
    }
    let length = u32::from_le_bytes(length);
    if length > 1 << 16 {
        return Err(damaged(format_args!("a header of {length} bytes")));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(damaged)?;
    let header = String::from_utf8_lossy(&header);
    let kind = field(&header, "descr")?.trim_matches(['\'', '"']);
    let element = NpyElement::of(kind)?;
    let size = element.size;
    let shape = field(&header, "shape")?.trim_matches(['(', ')']);
    let sides = shape.split(',').map(str::trim).filter(|side| !side.is_empty());
    let shape: Vec<usize> = sides
        .map(|side| side.parse().map_err(|_| damaged(format_args!("the shape ({shape})"))))
        .collect::<Result<_>>()?;
    if shape.len() > 2 || shape.iter().any(|side| *side > MAX_D) {
        return Err(damaged(format_args!("an array of the shape {shape:?}")));
    }
    let expected = shape.iter().product::<usize>() * size;
    // One byte more: to see what is too long, and to reach the end, where the checksum is compared.
    let mut bytes = Vec::new();
    file.take(expected as u64 + 1).read_to_end(&mut bytes).map_err(damaged)?;
    if bytes.len() != expected {
        return Err(damaged(format_args!("{} bytes or more of an array of {expected}", bytes.len())));
    }
    Ok(Array { shape, values: bytes.chunks_exact(size).map(|bytes| element.decode(bytes)).collect() })
}

/// How a number lies in an array.
struct NpyElement {
    big_endian: bool,
    /// `f`, `i` or `u`.
    kind: u8,
    /// Bytes.
    size: usize,
}

impl NpyElement {
    /// Of NumPy's type string, such as `<f8`.
    fn of(text: &str) -> Result<Self> {
        let unknown = || damaged(format_args!("elements of type {text}, not <f8"));
        let &[order, kind, size] = text.as_bytes() else { return Err(unknown()) };
        let size = usize::from(size.wrapping_sub(b'0'));
        let known = match kind {
            b'f' => [4, 8].contains(&size),
            b'i' | b'u' => [1, 2, 4, 8].contains(&size),
            _ => false,
        };
        // `|`: of one byte, which has no order; `=` is never written to a file.
        if !known || ![b'<', b'>', b'|'].contains(&order) {
            return Err(unknown());
        }
        Ok(Self { big_endian: order == b'>', kind, size })
    }

    /// Of `size` bytes.
    fn decode(&self, bytes: &[u8]) -> f64 {
        let mut little = [0; 8];
        for (to, from) in little.iter_mut().zip(bytes) {
            *to = *from;
        }
        if self.big_endian {
            little[..self.size].reverse();
        }
        let word = u64::from_le_bytes(little);
        let unused = 64 - 8 * self.size as u32;
        match (self.kind, self.size) {
            (b'f', 8) => f64::from_bits(word),
            (b'f', _) => f32::from_bits(word as u32).into(),
            // The sign is in the topmost bit.
            (b'i', _) => ((word << unused) as i64 >> unused) as f64,
            _ => word as f64,
        }
    }
}

/// The value of `key` in a header, which is a Python dictionary of three known entries.
fn field<'a>(header: &'a str, key: &str) -> Result<&'a str> {
    let missing = || damaged(format_args!("a header without {key}"));
    let at = header.find(&format!("'{key}':")).ok_or_else(missing)?;
    let value = header[at..].split_once(':').ok_or_else(missing)?.1.trim_start();
    let end = if value.starts_with('(') { value.find(')').map(|i| i + 1) } else { value.find([',', '}']) };
    Ok(value[..end.ok_or_else(missing)?].trim_end())
}

/// As [`write()`], into memory. The same bytes each time.
///
/// # Errors
/// As [`Statistics::check`].
pub fn to_bytes(statistics: &Statistics) -> Result<Vec<u8>> {
    statistics.check("given")?;
    let mut archive = ZipArchiveWriter::new(Vec::new());
    add(&mut archive, "mu", CompressionMethod::DEFLATE, &npy(&statistics.mean)?)?;
    add(&mut archive, "sigma", CompressionMethod::DEFLATE, &npy(&statistics.covariance)?)?;
    if let Some(n) = statistics.n {
        let array = [header("<i8", "()"), n.to_le_bytes().to_vec()].concat();
        add(&mut archive, "n", CompressionMethod::DEFLATE, &array)?;
    }
    archive.finish().map_err(cannot_make)
}

fn cannot_make(why: impl std::fmt::Display) -> Error {
    Error::failure(format!("cannot make an .npz: {why}"))
}

/// An array into the archive, deflated or (any other method) as it is.
fn add(
    archive: &mut ZipArchiveWriter<Vec<u8>>,
    key: &str,
    method: CompressionMethod,
    array: &[u8],
) -> Result<()> {
    let name = format!("{key}.npy");
    let (mut entry, config) =
        archive.new_file(&name).compression_method(method).start().map_err(cannot_make)?;
    let described = if method == CompressionMethod::DEFLATE {
        let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::default()));
        writer.write_all(array).map_err(cannot_make)?;
        let (encoder, described) = writer.finish().map_err(cannot_make)?;
        encoder.finish().map_err(cannot_make)?;
        described
    } else {
        let mut writer = config.wrap(&mut entry);
        writer.write_all(array).map_err(cannot_make)?;
        writer.finish().map_err(cannot_make)?.1
    };
    entry.finish(described).map_err(cannot_make)?;
    Ok(())
}

fn npy(tensor: &Tensor) -> Result<Vec<u8>> {
    let tensor = super::arrays::f64s(tensor)?;
    let shape = match tensor.size().as_slice() {
        [d] => format!("({d},)"),
        sides => format!("({})", sides.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")),
    };
    let mut data = vec![0; tensor.numel() * Kind::Double.elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut data, tensor.numel())?;
    Ok([header("<f8", &shape), data].concat())
}

/// Padded so that the data begin at a multiple of 64 bytes, as NumPy has it.
fn header(kind: &str, shape: &str) -> Vec<u8> {
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    let before = MAGIC.len() + 4;
    let whole = (before + text.len() + 1).next_multiple_of(64);
    text.extend(std::iter::repeat_n(' ', whole - before - text.len() - 1));
    text.push('\n');
    [MAGIC, &[1, 0], &(text.len() as u16).to_le_bytes(), text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics() -> Statistics {
        let x = Tensor::from_slice(&[1.0f64, 2.0, 4.0, -1.0, 0.5, 0.25, 3.0, 3.5, 0.0]).view([3, 3]);
        Statistics::of(&x, "real").unwrap()
    }

    /// An archive of arrays as they come.
    fn archive(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut archive = ZipArchiveWriter::new(Vec::new());
        for (key, bytes) in arrays {
            add(&mut archive, key, CompressionMethod::STORE, bytes).unwrap();
        }
        archive.finish().unwrap()
    }

    fn f64_array(shape: &str, values: &[f64]) -> Vec<u8> {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        [header("<f8", shape), data].concat()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("real.npz");
        write(&file, &statistics()).unwrap();
        let back = read(&file).unwrap();
        assert_eq!(
            (back.n, &back.mean, &back.covariance),
            (Some(3), &statistics().mean, &statistics().covariance)
        );
        assert_eq!(std::fs::read(&file).unwrap(), to_bytes(&statistics()).unwrap());
        let unknown = Statistics { n: None, ..statistics() };
        assert_eq!(from_bytes(&to_bytes(&unknown).unwrap()).unwrap().n, None);
        let e = read(&dir.path().join("none.npz")).unwrap_err();
        assert!(e.to_string().contains("none.npz") && e.exit_code() == 2);
    }

    #[test]
    fn numbers_of_every_order_and_width_are_read() {
        let of = |descr: &str, bytes: &[u8]| {
            let sigma = [header(descr, "(1, 1)"), bytes.to_vec()].concat();
            let read = from_bytes(&archive(&[("mu", f64_array("(1,)", &[1.0])), ("sigma", sigma)])).unwrap();
            f64::try_from(read.covariance).unwrap()
        };
        assert_eq!(of(">f8", &2.5f64.to_be_bytes()), 2.5);
        assert_eq!((of("<f4", &2.5f32.to_le_bytes()), of(">f4", &2.5f32.to_be_bytes())), (2.5, 2.5));
        assert_eq!((of("<i4", &7i32.to_le_bytes()), of(">i2", &7i16.to_be_bytes())), (7.0, 7.0));
        assert_eq!((of("|u1", &[200]), of("<u8", &9u64.to_le_bytes())), (200.0, 9.0));
        assert_eq!(NpyElement::of("|i1").unwrap().decode(&[0xfe]), -2.0);
        assert_eq!(NpyElement::of(">i4").unwrap().decode(&(-5i32).to_be_bytes()), -5.0);
        // An n that is not a number of images says nothing.
        for n in [
            f64_array("()", &[0.0]),
            f64_array("(2,)", &[3.0, 4.0]),
            [header("|O", "()"), vec![0; 8]].concat(),
        ] {
            let arrays =
                [("mu", f64_array("(1,)", &[1.0])), ("sigma", f64_array("(1, 1)", &[2.0])), ("n", n)];
            assert_eq!(from_bytes(&archive(&arrays)).unwrap().n, None);
        }
        let n = ("n", [header("<i4", "()"), 300i32.to_le_bytes().to_vec()].concat());
        let arrays = [("mu", f64_array("(1,)", &[1.0])), ("sigma", f64_array("(1, 1)", &[2.0])), n];
        assert_eq!(from_bytes(&archive(&arrays)).unwrap().n, Some(300));
    }

    #[test]
    fn damage_and_other_archives_are_refused() {
        let whole = to_bytes(&statistics()).unwrap();
        let refused = |bytes: &[u8], words: &str| {
            let e = from_bytes(bytes).map(|_| ()).unwrap_err();
            assert!(e.to_string().contains(words) && e.exit_code() == 2, "{words}: {e}");
        };
        for length in [0, 3, whole.len() / 2, whole.len() - 1] {
            refused(&whole[..length], "not a readable .npz");
        }
        // Any byte of the data of a stored array: the checksum sees it.
        let (mu, sigma) = (("mu", f64_array("(1,)", &[1.0])), ("sigma", f64_array("(1, 1)", &[2.0])));
        let mut stored = archive(&[mu.clone(), sigma.clone()]);
        assert_eq!(from_bytes(&stored).unwrap().n, None);
        let at = stored.windows(8).position(|w| w == 2f64.to_le_bytes()).unwrap();
        stored[at] ^= 1;
        refused(&stored, "sigma: not a readable .npz");
        refused(&archive(std::slice::from_ref(&mu)), "no sigma.npy");
        refused(&archive(&[]), "no mu.npy");
        let with = |array: Vec<u8>| archive(&[mu.clone(), ("sigma", array)]);
        refused(&with(f64_array("(2, 2)", &[1.0; 4])), "sigma has the shape [2, 2], mu has 1 values");
        refused(&with(f64_array("(1, 1)", &[])), "0 bytes or more of an array of 8");
        refused(&with(f64_array("(1, 1)", &[1.0; 2])), "9 bytes or more");
        refused(&with(f64_array("(1, 1)", &[f64::NAN])), "covariance with NaN");
        refused(&with(f64_array("(1, -1)", &[1.0])), "the shape");
        refused(&with(f64_array("(99999999, 99999999)", &[1.0])), "an array of the shape");
        refused(&with([header("<c8", "(1, 1)"), vec![0; 8]].concat()), "type <c8");
        refused(&with([header("<f2", "(1, 1)"), vec![0; 2]].concat()), "type <f2");
        refused(&with([header("|O", "(1, 1)"), vec![0; 8]].concat()), "type |O");
        refused(&with(b"\x93NUMPY\x09\x00".to_vec()), "format 1 to 3");
        refused(&with(b"\x93NUMPY\x01\x00\x03\x00{ }".to_vec()), "header without descr");
        let asymmetric =
            [("mu", f64_array("(2,)", &[0.0; 2])), ("sigma", f64_array("(2, 2)", &[1.0, 0.5, 0.0, 1.0]))];
        refused(&archive(&asymmetric), "not symmetric");
    }
}

//! 2-D NIfTI-1 files: reading (also gzip-compressed), and writing for the phantom.
//!
//! NIfTI stores x fastest, so the bytes of CAMUS's (x, y) arrays are already an upright picture's
//! rows; only a library that shows them as `array[x][y]` has to transpose.

use std::{
    io::{Read, Write},
    path::Path,
};

use ::nifti::{NiftiHeader, NiftiType, Unit};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};

use super::{Element, MAX_SIDE, Slice};
use crate::error::{AtPath, Error, Result};
use crate::picture::Picture;
use crate::plain_file;

const HEADER_BYTES: usize = 348;
/// Header plus the four bytes that say "no extensions".
const DATA_OFFSET: usize = 352;

/// Reads `.nii` or `.nii.gz` (distinguished by content) with two dimensions, or more of length 1.
pub fn read(file: &Path) -> Result<Slice> {
    let bytes = plain_file::read(file).at_path(file, "cannot read the NIfTI file")?;
    parse(&bytes).map_err(|e| e.at(file))
}

fn damaged(why: impl std::fmt::Display) -> Error {
    Error::input(format!("not a readable NIfTI file: {why}"))
        .help("the file is damaged or is not NIfTI-1: copy it again")
}

fn parse(bytes: &[u8]) -> Result<Slice> {
    let mut source: Box<dyn Read + '_> =
        if bytes.starts_with(&[0x1f, 0x8b]) { Box::new(MultiGzDecoder::new(bytes)) } else { Box::new(bytes) };
    let header = NiftiHeader::from_reader(&mut source).map_err(damaged)?;
    if header.sizeof_hdr as usize != HEADER_BYTES {
        return Err(damaged(format_args!("its header claims {} bytes, not 348", header.sizeof_hdr)));
    }
    let dims = header.dim().map_err(damaged)?;
    let (Some(&width), Some(&height)) = (dims.first(), dims.get(1)) else {
        return Err(damaged("it has one dimension"));
    };
    if dims.iter().skip(2).any(|&n| n != 1) {
        let shape: Vec<_> = dims.iter().map(u16::to_string).collect();
        return Err(Error::input(format!("a volume of {}, not one picture", shape.join(" x ")))
            .help("give single frames; sequences are not imported"));
    }
    let (width, height) = (usize::from(width), usize::from(height));
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err(damaged(format_args!("{width} x {height} pixels")));
    }
    let element = match header.data_type().map_err(damaged)? {
        NiftiType::Uint8 => Element::U8,
        NiftiType::Int8 => Element::I8,
        NiftiType::Uint16 => Element::U16,
        NiftiType::Int16 => Element::I16,
        NiftiType::Uint32 => Element::U32,
        NiftiType::Int32 => Element::I32,
        NiftiType::Uint64 => Element::U64,
        NiftiType::Int64 => Element::I64,
        NiftiType::Float32 => Element::F32,
        NiftiType::Float64 => Element::F64,
        other => return Err(damaged(format_args!("pixels of type {other:?} are not supported"))),
    };
    let offset = header.vox_offset;
    if !(HEADER_BYTES as f32..1e6).contains(&offset) {
        return Err(damaged(format_args!("its pixels start at byte {offset}")));
    }
    std::io::copy(&mut source.by_ref().take(offset as u64 - HEADER_BYTES as u64), &mut std::io::sink())
        .map_err(damaged)?;
    let expected = width * height * element.bytes();
    let mut data = Vec::new();
    source.take(expected as u64).read_to_end(&mut data).map_err(damaged)?;
    if data.len() != expected {
        return Err(damaged(format_args!("it is truncated: {} of {expected} bytes of pixels", data.len())));
    }
    let big_endian = header.endianness == ::nifti::Endianness::Big;
    let mut values = element.decode(&data, big_endian);
    // A slope of 0 means "not scaled" (NIfTI-1 standard, field scl_slope); NaN is written for the same.
    let (slope, inter) = (f64::from(header.scl_slope), f64::from(header.scl_inter));
    if slope.is_finite() && slope != 0.0 {
        let inter = if inter.is_finite() { inter } else { 0.0 };
        values.iter_mut().for_each(|v| *v = *v * slope + inter);
    }
    Ok(Slice { width, height, values, spacing: spacing(&header)? })
}

/// In mm; `None` where the header leaves it out.
fn spacing(header: &NiftiHeader) -> Result<Option<(f64, f64)>> {
    let to_mm = match header.xyzt_to_space().map_err(damaged)? {
        Unit::Meter => 1000.0,
        Unit::Micron => 0.001,
        _ => 1.0, // "unknown" is millimetres in practice
    };
    let (x, y) = (f64::from(header.pixdim[1]), f64::from(header.pixdim[2]));
    sane_spacing(shortest_decimal(x) * to_mm, shortest_decimal(y) * to_mm)
}

/// 0.308 stored as f32 is 0.30799999833; the decimal that was meant is the shortest one.
fn shortest_decimal(v: f64) -> f64 {
    (v as f32).to_string().parse().unwrap_or(v)
}

/// Absent or zero spacing is unknown; one that no echocardiograph has is an error.
pub fn sane_spacing(x: f64, y: f64) -> Result<Option<(f64, f64)>> {
    if !x.is_finite() || !y.is_finite() || x == 0.0 || y == 0.0 {
        return Ok(None);
    }
    let (x, y) = (x.abs(), y.abs());
    if [x, y].iter().any(|v| !(0.001..=20.0).contains(v)) {
        return Err(Error::input(format!("a pixel size of {x} x {y} mm"))
            .help("correct the pixel size and its unit in the header, or set it to 0 where unknown"));
    }
    Ok(Some((x, y)))
}

/// Bytes of a gzip-compressed 8-bit NIfTI-1 file as CAMUS writes it: (x, y) array, isotropic pixels.
pub fn encode_gz(picture: &Picture, spacing_mm: f64, description: &str) -> Result<Vec<u8>> {
    let mut header = [0u8; DATA_OFFSET];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = header.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    // Field offsets: nifti1.h.
    put(0, &(HEADER_BYTES as i32).to_le_bytes());
    for (i, n) in [2, picture.width, picture.height, 1, 1, 1, 1, 1].into_iter().enumerate() {
        put(40 + 2 * i, &(n as u16).to_le_bytes());
    }
    put(70, &2i16.to_le_bytes()); // datatype: uint8
    put(72, &8i16.to_le_bytes()); // bitpix
    let s = spacing_mm as f32;
    for (i, v) in [1.0, s, s, 1.0, 1.0, 1.0, 1.0, 1.0].into_iter().enumerate() {
        put(76 + 4 * i, &v.to_le_bytes());
    }
    put(108, &(DATA_OFFSET as f32).to_le_bytes());
    put(112, &1f32.to_le_bytes()); // scl_slope
    put(123, &[2]); // xyzt_units: mm
    let text = description.as_bytes();
    put(148, &text[..text.len().min(79)]);
    put(254, &1i16.to_le_bytes()); // sform_code: scanner
    for (row, at) in [(0, 280), (1, 296), (2, 312)] {
        put(at + 4 * row, &(if row < 2 { -s } else { 1.0 }).to_le_bytes());
    }
    put(344, b"n+1\0");
    let mut gz = GzEncoder::new(Vec::new(), Compression::default());
    gz.write_all(&header)
        .and_then(|()| gz.write_all(&picture.pixels))
        .and_then(|()| gz.finish())
        .map_err(|e| Error::failure(format!("cannot compress: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Picture {
        Picture { width: 3, height: 2, pixels: vec![0, 1, 2, 3, 200, 255] }
    }

    fn plain() -> Vec<u8> {
        let mut bytes = Vec::new();
        MultiGzDecoder::new(&encode_gz(&sample(), 0.308, "test").unwrap()[..])
            .read_to_end(&mut bytes)
            .unwrap();
        bytes
    }

    #[test]
    fn written_is_read_back_upright_with_its_spacing() {
        let slice = parse(&encode_gz(&sample(), 0.308, "test").unwrap()).unwrap();
        assert_eq!(slice.to_image().unwrap(), sample());
        assert_eq!(slice.spacing, Some((0.308, 0.308)));
        assert_eq!(parse(&plain()).unwrap(), slice);
    }

    #[test]
    fn types_byte_orders_scaling_and_units() {
        // The same picture as big-endian i16 with slope 0.5 and intercept 1, in metres, 3-D of depth 1.
        let little = plain();
        let mut big = little[..DATA_OFFSET].to_vec();
        let mut put = |at: usize, bytes: &[u8]| big[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &348i32.to_be_bytes());
        for (i, n) in [3i16, 3, 2, 1, 1, 1, 1, 1].into_iter().enumerate() {
            put(40 + 2 * i, &n.to_be_bytes());
        }
        put(70, &4i16.to_be_bytes());
        for (i, v) in [1f32, 0.000154, 0.000308, 1.0].into_iter().enumerate() {
            put(76 + 4 * i, &v.to_be_bytes());
        }
        put(108, &352f32.to_be_bytes());
        put(112, &0.5f32.to_be_bytes());
        put(116, &1f32.to_be_bytes());
        put(123, &[1]);
        for v in [-2i16, 0, 2, 4, 398, 508] {
            big.extend(v.to_be_bytes());
        }
        let slice = parse(&big).unwrap();
        assert_eq!(slice.values, [0.0, 1.0, 2.0, 3.0, 200.0, 255.0]);
        let (x, y) = slice.spacing.unwrap();
        assert!((x - 0.154).abs() < 1e-9 && (y - 0.308).abs() < 1e-9);
    }

    #[test]
    fn gzip_members_and_padding_are_read_as_gunzip_reads_them() {
        let (whole, pack) = (plain(), |bytes: &[u8]| {
            let mut gz = GzEncoder::new(Vec::new(), Compression::default());
            gz.write_all(bytes).unwrap();
            gz.finish().unwrap()
        });
        let slice = parse(&whole).unwrap();
        for cut in [1, 100, HEADER_BYTES, DATA_OFFSET, whole.len() - 1] {
            let mut members = [pack(&whole[..cut]), pack(&whole[cut..])].concat();
            members.extend([0; 512]);
            assert_eq!(parse(&members).unwrap(), slice, "cut at {cut}");
        }
    }

    #[test]
    fn damage_is_named_and_never_panics() {
        let good = plain();
        let message = |bytes: &[u8]| parse(bytes).unwrap_err().to_string();
        assert!(message(&good[..good.len() - 1]).contains("truncated: 5 of 6 bytes"));
        assert!(message(b"hello").contains("not a readable NIfTI file"));
        let gz = encode_gz(&sample(), 0.3, "").unwrap();
        assert!(message(&gz[..gz.len() / 2]).contains("not a readable NIfTI file"));
        let with = |at: usize, bytes: &[u8]| {
            let mut copy = good.clone();
            copy[at..at + bytes.len()].copy_from_slice(bytes);
            copy
        };
        assert!(message(&with(40, &[3, 0, 3, 0, 2, 0, 5, 0])).contains("a volume of 3 x 2 x 5"));
        assert!(message(&with(70, &[128, 0])).contains("not supported"));
        assert!(message(&with(76 + 4, &1e9f32.to_le_bytes())).contains("a pixel size of"));
        assert!(message(&with(108, &(-5f32).to_le_bytes())).contains("start at byte -5"));
        assert_eq!(parse(&with(76 + 4, &0f32.to_le_bytes())).unwrap().spacing, None);
        // Every single flipped header byte either reads or is an error.
        for (at, byte) in good.iter().enumerate().take(HEADER_BYTES) {
            let _ = parse(&with(at, &[byte ^ 0xff]));
        }
    }
}

//! MetaImage (`.mhd` + `.raw`/`.zraw`, or one file), the format of the older CAMUS release.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
};

use flate2::read::ZlibDecoder;

use super::{Element, MAX_SIDE, Slice, nifti::sane_spacing};
use crate::{
    error::{AtPath, Error, Result},
    plain_file, text_file,
};

/// In place of a file's name: the pixels follow the header.
const LOCAL: &str = "LOCAL";

/// Bytes: a header has a dozen lines.
const LONGEST_HEADER: u64 = 1 << 16;

/// Reads a 2-D MetaImage, or one with further dimensions of length 1.
pub fn read(file: &Path) -> Result<Slice> {
    let bytes = plain_file::read(file).at_path(file, "cannot read the MetaImage header")?;
    let (header, local) = Header::parse(&bytes).map_err(|e| e.at(file))?;
    let (data, place) = if header.data_file == LOCAL {
        (local.to_vec(), file.to_owned())
    } else {
        let place = file.with_file_name(&header.data_file);
        let data = plain_file::read(&place)
            .at_path(&place, "cannot read the pixels")
            .map_err(|e| e.help(format!("{} names this file", file.display())))?;
        (data, place)
    };
    header.slice(data).map_err(|e| e.at(place))
}

/// The files that [`read`] reads: the header, and the file of the pixels where it is another one.
pub fn files(file: &Path) -> Vec<PathBuf> {
    let mut head = Vec::new();
    let read = plain_file::open(file).and_then(|file| file.take(LONGEST_HEADER).read_to_end(&mut head));
    let header = read.ok().and_then(|_| Header::parse(&head).ok()).map(|(header, _)| header);
    let data = header.filter(|h| h.data_file != LOCAL).map(|h| file.with_file_name(h.data_file));
    std::iter::once(file.to_owned()).chain(data).collect()
}

struct Header {
    width: usize,
    height: usize,
    element: Element,
    big_endian: bool,
    compressed: bool,
    /// The pixels are written as numbers in text.
    ascii: bool,
    /// Bytes to skip in the data file; -1: all but the pixels (MetaIO's convention).
    skip: i64,
    spacing: Option<(f64, f64)>,
    data_file: String,
}

fn wrong(line: usize, why: impl std::fmt::Display) -> Error {
    Error::input(format!("not a readable MetaImage: line {line}: {why}"))
        .help("the header is damaged or is not MetaImage: copy it again")
}

impl Header {
    /// The header, and the bytes after it (the pixels where `ElementDataFile = LOCAL`).
    fn parse(bytes: &[u8]) -> Result<(Self, &[u8])> {
        let mut fields: BTreeMap<String, (usize, String)> = BTreeMap::new();
        let mut rest = bytes;
        let mut number = 0;
        while !rest.is_empty() && !fields.contains_key("ElementDataFile") {
            let end = rest.iter().position(|&b| b == b'\n').map_or(rest.len(), |at| at + 1);
            let (line, after) = rest.split_at(end);
            rest = after;
            number += 1;
            let line = text_file::decode(line)?;
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let (key, value) =
                line.split_once('=').ok_or_else(|| wrong(number, "is not of the form `Key = value`"))?;
            fields.insert(key.trim().to_owned(), (number, value.trim().to_owned()));
        }
        let get = |key: &str| fields.get(key).map(|(line, value)| (*line, value.as_str()));
        let need = |key: &str| get(key).ok_or_else(|| wrong(number, format_args!("`{key}` is missing")));
        // As MetaIO reads booleans: by the first letter.
        let flag = |key: &str| get(key).is_some_and(|(_, value)| value.starts_with(['T', 't', '1']));

        let (line, text) = need("DimSize")?;
        let dims: Vec<usize> = numbers(text).ok_or_else(|| wrong(line, "DimSize is not whole numbers"))?;
        let (width, height) = match dims[..] {
            [w, h, ref more @ ..] if more.iter().all(|&n| n == 1) => (w, h),
            _ => return Err(wrong(line, format_args!("DimSize = {text} is not one picture"))),
        };
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(wrong(line, format_args!("{width} x {height} pixels")));
        }
        if let Some((line, text)) = get("ElementNumberOfChannels").filter(|(_, text)| *text != "1") {
            return Err(wrong(line, format_args!("{text} channels; a grey picture has 1")));
        }
        let (line, text) = need("ElementType")?;
        let element = match text {
            "MET_UCHAR" => Element::U8,
            "MET_CHAR" => Element::I8,
            "MET_USHORT" => Element::U16,
            "MET_SHORT" => Element::I16,
            "MET_UINT" => Element::U32,
            "MET_INT" => Element::I32,
            "MET_ULONG_LONG" => Element::U64,
            "MET_LONG_LONG" => Element::I64,
            "MET_FLOAT" => Element::F32,
            "MET_DOUBLE" => Element::F64,
            _ => return Err(wrong(line, format_args!("ElementType {text} is not supported"))),
        };
        let spacing = match get("ElementSpacing").or_else(|| get("ElementSize")) {
            None => None,
            Some((line, text)) => match numbers::<f64>(text).as_deref() {
                Some([x, y, ..]) => sane_spacing(*x, *y)?,
                _ => return Err(wrong(line, "ElementSpacing is not two numbers")),
            },
        };
        let skip = match get("HeaderSize") {
            None => 0,
            Some((line, text)) => text.parse().map_err(|_| wrong(line, "HeaderSize is not a number"))?,
        };
        let (line, data_file) = need("ElementDataFile")?;
        // The pixels lie beside the header; a list or a path elsewhere is not CAMUS.
        if data_file.contains(['/', '\\']) || data_file.starts_with("LIST") || data_file.is_empty() {
            return Err(wrong(line, format_args!("ElementDataFile = {data_file} is not supported")));
        }
        let header = Self {
            width,
            height,
            element,
            big_endian: flag("BinaryDataByteOrderMSB") || flag("ElementByteOrderMSB"),
            compressed: flag("CompressedData"),
            ascii: get("BinaryData").is_some() && !flag("BinaryData"),
            skip,
            spacing,
            data_file: data_file.to_owned(),
        };
        Ok((header, rest))
    }

    fn slice(&self, data: Vec<u8>) -> Result<Slice> {
        if self.ascii {
            return self.slice_of_text(&data);
        }
        let expected = self.width * self.height * self.element.bytes();
        let skip = match usize::try_from(self.skip) {
            Ok(skip) => skip,
            Err(_) => data.len().saturating_sub(expected),
        };
        let data = data.get(skip..).unwrap_or_default();
        let mut pixels = Vec::new();
        if self.compressed {
            ZlibDecoder::new(data).take(expected as u64).read_to_end(&mut pixels).map_err(|e| {
                Error::input(format!("cannot decompress the pixels: {e}"))
                    .help("the file is damaged: copy it again")
            })?;
        } else {
            pixels.extend_from_slice(&data[..data.len().min(expected)]);
        }
        if pixels.len() != expected {
            return Err(Error::input(format!(
                "it is truncated: {} of {expected} bytes of pixels ({} x {})",
                pixels.len(),
                self.width,
                self.height
            ))
            .help("the file is damaged: copy it again"));
        }
        Ok(Slice {
            width: self.width,
            height: self.height,
            values: self.element.decode(&pixels, self.big_endian),
            spacing: self.spacing,
        })
    }
}

impl Header {
    /// Pixels as numbers with blanks between them (`BinaryData = False`).
    fn slice_of_text(&self, data: &[u8]) -> Result<Slice> {
        let damaged = |why: String| {
            Error::input(format!("the pixels are written as text, and {why}"))
                .help("the file is damaged: copy it again")
        };
        let text = text_file::decode(data)?;
        let values: Vec<f64> = numbers(&text).ok_or_else(|| damaged("one is not a number".to_owned()))?;
        let expected = self.width * self.height;
        if values.len() != expected {
            return Err(damaged(format!("there are {} of {expected}", values.len())));
        }
        Ok(Slice { width: self.width, height: self.height, values, spacing: self.spacing })
    }
}

fn numbers<T: std::str::FromStr>(text: &str) -> Option<Vec<T>> {
    text.split_whitespace().map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const HEAD: &str = "ObjectType = Image\nNDims = 3\nBinaryDataByteOrderMSB = False\nDimSize = 3 2 1\n\
                        ElementSpacing = 0.154 0.308 1\nElementType = MET_UCHAR\n";

    fn read_text(header: &str, raw: &[u8]) -> Result<Slice> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.mhd");
        std::fs::write(&file, header).unwrap();
        std::fs::write(dir.path().join("a.raw"), raw).unwrap();
        read(&file)
    }

    #[test]
    fn raw_local_compressed_and_big_endian() {
        let pixels = [0, 1, 2, 3, 4, 5];
        let values: Vec<f64> = pixels.iter().map(|&v| f64::from(v)).collect();
        let plain = read_text(&format!("{HEAD}ElementDataFile = a.raw\n"), &pixels).unwrap();
        assert_eq!((plain.width, plain.height, plain.spacing), (3, 2, Some((0.154, 0.308))));
        assert_eq!(plain.values, values);

        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(&pixels).unwrap();
        let zraw = zlib.finish().unwrap();
        let compressed = format!("{HEAD}CompressedData = True\nElementDataFile = a.raw\n");
        assert_eq!(read_text(&compressed, &zraw).unwrap(), plain);

        let wide = HEAD.replace("MET_UCHAR", "MET_USHORT").replace("MSB = False", "MSB = True");
        let raw: Vec<u8> = pixels.iter().flat_map(|&v| [0, v]).collect();
        assert_eq!(read_text(&format!("{wide}ElementDataFile = a.raw\n"), &raw).unwrap(), plain);

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.mha");
        let mut bytes = format!("{HEAD}ElementDataFile = LOCAL\n").into_bytes();
        bytes.extend(pixels);
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(read(&file).unwrap(), plain);
    }

    #[test]
    fn booleans_text_and_old_comments_are_read_as_metaio_reads_them() {
        let end = "ElementDataFile = a.raw\n";
        let plain = read_text(&format!("{HEAD}{end}"), &[0, 1, 2, 3, 4, 5]).unwrap();
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(&[0, 1, 2, 3, 4, 5]).unwrap();
        let packed = zlib.finish().unwrap();
        for yes in ["T", "true", "TRUE", "1"] {
            let header = format!("{HEAD}BinaryData = {yes}\nCompressedData = {yes}\n{end}");
            assert_eq!(read_text(&header, &packed).unwrap(), plain, "{yes}");
        }
        let wide = HEAD.replace("MET_UCHAR", "MET_USHORT").replace("MSB = False", "MSB = T");
        let raw: Vec<u8> = (0..6).flat_map(|v| [0, v]).collect();
        assert_eq!(read_text(&format!("{wide}{end}"), &raw).unwrap(), plain);
        for no in ["False", "F", "0"] {
            let header = format!("{HEAD}BinaryData = {no}\n{end}");
            assert_eq!(read_text(&header, b"0 1 2\n3 4 5\n").unwrap(), plain, "{no}");
            let message = read_text(&header, b"0 1 2 3 4").unwrap_err().to_string();
            assert!(message.contains("there are 5 of 6"), "{message}");
        }
        let long = HEAD.replace("MET_UCHAR", "MET_LONG_LONG");
        let raw: Vec<u8> = (0..6i64).flat_map(i64::to_le_bytes).collect();
        assert_eq!(read_text(&format!("{long}{end}"), &raw).unwrap(), plain);

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.mhd");
        let header = [b"\xef\xbb\xbfComment = \xe9cho\n", HEAD.as_bytes(), end.as_bytes()].concat();
        std::fs::write(&file, header).unwrap();
        std::fs::write(dir.path().join("a.raw"), [0, 1, 2, 3, 4, 5]).unwrap();
        assert_eq!(read(&file).unwrap(), plain);
    }

    #[test]
    fn each_fault_is_named() {
        let end = "ElementDataFile = a.raw\n";
        for (header, raw, expected) in [
            (format!("{HEAD}{end}"), &[1u8, 2][..], "truncated: 2 of 6 bytes"),
            (HEAD.to_owned(), &[], "`ElementDataFile` is missing"),
            (format!("{HEAD}ElementDataFile = b.raw\n"), &[], "cannot read the pixels"),
            (format!("{HEAD}ElementDataFile = ../a.raw\n"), &[], "is not supported"),
            (format!("{}{end}", HEAD.replace("3 2 1", "3 2 7")), &[], "line 4: DimSize = 3 2 7"),
            (format!("{}{end}", HEAD.replace("3 2 1", "99999 2 1")), &[], "99999 x 2 pixels"),
            (format!("{HEAD}ElementNumberOfChannels = 3\n{end}"), &[], "3 channels"),
            (format!("{}{end}", HEAD.replace("MET_UCHAR", "MET_LONG")), &[], "MET_LONG is not supported"),
            ("hello".to_owned(), &[], "line 1: is not of the form"),
        ] {
            let message = read_text(&header, raw).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}

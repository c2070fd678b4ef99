//! What `torch.save` writes, as bytes: the parts of a pickle, and archives around it.

use std::io::Write;

use flate2::{Compression, write::DeflateEncoder};
use rawzip::{CompressionMethod, ZipArchiveWriter};
use tch::{Kind, Tensor};

pub fn text(words: &str) -> Vec<u8> {
    [b"X", &(words.len() as u32).to_le_bytes()[..], words.as_bytes()].concat()
}

pub fn integer(value: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &value.to_le_bytes()].concat()
}

pub fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

pub fn tuple(parts: &[Vec<u8>]) -> Vec<u8> {
    [b"(", parts.concat().as_slice(), b"t"].concat()
}

pub fn integers(values: &[i64]) -> Vec<u8> {
    tuple(&values.iter().map(|value| integer(*value)).collect::<Vec<_>>())
}

pub fn dict(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> = pairs.iter().flat_map(|(key, value)| [text(key), value.clone()].concat()).collect();
    [b"}(", items.as_slice(), b"u"].concat()
}

pub fn storage(class: &str, key: &str, count: i64) -> Vec<u8> {
    let parts = [text("storage"), global("torch", class), text(key), text("cpu"), integer(count)];
    [tuple(&parts), b"Q".to_vec()].concat()
}

/// A tensor of that storage.
pub fn tensor(storage: Vec<u8>, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let hooks = [global("collections", "OrderedDict"), b")R".to_vec()].concat();
    let parts = [storage, integer(offset), integers(shape), integers(strides), vec![0x89], hooks];
    [global("torch._utils", "_rebuild_tensor_v2"), tuple(&parts), b"R".to_vec()].concat()
}

/// A pickle of protocol 2.
pub fn pickle(object: &[u8]) -> Vec<u8> {
    [b"\x80\x02", object, b"."].concat()
}

/// An archive of these records, all in the folder `archive`.
pub fn zip(records: &[(&str, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut archive = ZipArchiveWriter::new(Vec::new());
    for (name, bytes) in records {
        let name = format!("archive/{name}");
        let (mut entry, config) = archive.new_file(&name).compression_method(method).start().unwrap();
        let described = if method == CompressionMethod::DEFLATE {
            let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::fast()));
            writer.write_all(bytes).unwrap();
            let (encoder, described) = writer.finish().unwrap();
            encoder.finish().unwrap();
            described
        } else {
            let mut writer = config.wrap(&mut entry);
            writer.write_all(bytes).unwrap();
            writer.finish().unwrap().1
        };
        entry.finish(described).unwrap();
    }
    archive.finish().unwrap()
}

/// A checkpoint with this object and these storages.
pub fn checkpoint(object: &[u8], storages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut records = vec![("data.pkl", pickle(object)), ("byteorder", b"little".to_vec())];
    let names: Vec<String> = storages.iter().map(|(key, _)| format!("data/{key}")).collect();
    records.extend(names.iter().map(String::as_str).zip(storages.iter().map(|(_, bytes)| bytes.clone())));
    zip(&records, CompressionMethod::STORE)
}

/// A legacy checkpoint with this object.
pub fn legacy(object: &[u8], storages: &[(&str, u64, Vec<u8>)]) -> Vec<u8> {
    let magic = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
    let keys: Vec<u8> = storages.iter().flat_map(|(key, _, _)| text(key)).collect();
    let list = [b"](", keys.as_slice(), b"e"].concat();
    let machine = dict(&[("little_endian", vec![0x88])]);
    let mut file = Vec::new();
    for part in [magic.as_slice(), &integer(1001), &machine, object, &list] {
        file.extend(pickle(part));
    }
    for (_, count, bytes) in storages {
        file.extend(count.to_le_bytes());
        file.extend(bytes);
    }
    file
}

/// A state_dict, as `torch.save` writes it.
pub fn torch_save(tensors: &[(String, Tensor)]) -> Vec<u8> {
    let (mut pairs, mut storages) = (Vec::new(), Vec::new());
    for (number, (name, values)) in tensors.iter().enumerate() {
        let class = match values.kind() {
            Kind::Float => "FloatStorage",
            Kind::Half => "HalfStorage",
            Kind::BFloat16 => "BFloat16Storage",
            Kind::Int64 => "LongStorage",
            other => panic!("{other:?}"),
        };
        let values = values.contiguous();
        let mut bytes = vec![0; values.numel() * values.kind().elt_size_in_bytes()];
        values.copy_data_u8(&mut bytes, values.numel());
        let key = number.to_string();
        let whole = storage(class, &key, values.numel() as i64);
        pairs.push((name.as_str(), tensor(whole, 0, &values.size(), &values.stride())));
        storages.push((key, bytes));
    }
    let storages: Vec<(&str, Vec<u8>)> =
        storages.iter().map(|(key, bytes)| (key.as_str(), bytes.clone())).collect();
    checkpoint(&dict(&pairs), &storages)
}

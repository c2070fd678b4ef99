//! Files that mean harm, or are broken: each is refused with one line that says what and one that says what to do.

use std::fs;

use flate2::{Compression, write::DeflateEncoder};
use rawzip::{CompressionMethod, ZipArchiveWriter};
use synecho::nn::tensor_file::TensorFile;

use crate::{allocations, torch_save::*};

/// The largest block, and all blocks together, freed ones too. A buffer of 64 KiB and the pickle's objects are in them.
const LARGEST: usize = 1 << 20;
const ALL: usize = 16 << 20;

/// The error of a file with these bytes. Opening it has allocated next to nothing.
fn refused(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.pt");
    fs::write(&path, bytes).unwrap();
    let (opened, largest, all) = allocations::of(|| TensorFile::open(&path).map(|_| ()));
    let error = opened.unwrap_err();
    let words = error.to_string();
    let lines: Vec<&str> = words.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains("bad.pt: ") && lines[1].starts_with("  help: "), "{words}");
    assert!(words.chars().all(|c| c == '\n' || !c.is_control()) && words.len() < 700, "{words}");
    assert!(largest <= LARGEST && all <= ALL, "{words}: {largest} bytes at once, {all} in all");
    words
}

fn check(bytes: &[u8], says: &str) {
    let words = refused(bytes);
    assert!(words.contains(says), "{says}: {words}");
}

/// The object in both containers.
fn check_object(object: &[u8], says: &str) {
    check(&checkpoint(object, &[]), says);
    check(&legacy(object, &[]), says);
}

fn floats(count: usize) -> Vec<u8> {
    vec![0; count * 4]
}

/// A checkpoint of one tensor in a storage of four floats.
fn one(offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let values = tensor(storage("FloatStorage", "0", 4), offset, shape, strides);
    checkpoint(&dict(&[("weight", values)]), &[("0", floats(4))])
}

/// What would be executed, if anything were.
#[test]
fn nothing_is_called() {
    let call = |module: &str, name: &str, argument: &str| {
        [global(module, name), tuple(&[text(argument)]), b"R".to_vec()].concat()
    };
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("subprocess", "Popen"),
    ] {
        check_object(
            &call(module, name, "touch /tmp/x"),
            &format!("the pickle names {module}.{name}, which is not read"),
        );
        // The same hidden among good tensors, and by the opcode of protocol 4.
        let hidden = dict(&[("weight", call(module, name, "1"))]);
        check_object(&hidden, &format!("{module}.{name}"));
        let by_stack = [text(module), text(name), vec![0x93]].concat();
        check_object(&by_stack, &format!("{module}.{name}"));
    }
    let nested = [text("torch._utils"), text("_rebuild_tensor_v2.__globals__"), vec![0x93]].concat();
    check_object(&nested, "torch._utils._rebuild_tensor_v2.__globals__");
    // A known class, called otherwise than torch.save does.
    check_object(&call("collections", "OrderedDict", "x"), "arguments that torch.save does not write");
    check_object(&[text("os"), tuple(&[]), b"R".to_vec()].concat(), "the pickle calls a str");
    check_object(&[text("os"), tuple(&[]), vec![0x81]].concat(), "makes an object of a str");
    check_object(&[text("os"), dict(&[]), b"b".to_vec()].concat(), "sets the state of a str");
    let module =
        [tuple(&[text("module"), text("Net"), text("net.py"), text("code")]), b"Q".to_vec()].concat();
    check_object(&module, "a whole module with its code");
    check_object(&[integer(1), b"Q".to_vec()].concat(), "a persistent id");
    // A name is repeated in part, and without what steers a terminal.
    let words = refused(&checkpoint(&global("\u{1b}[31mevil", &"x".repeat(300)), &[]));
    assert!(words.contains("\\u{1b}[31mevil.xxx") && words.contains('…'), "{words}");
}

#[test]
fn other_opcodes_are_refused_by_name() {
    for (object, says) in [
        (&b"(ios\nsystem\n"[..], "the opcode INST at byte"),
        (b"(cposix\n", "its pickle ends early"),
        (b"(o", "OBJ"),
        (b"\x82\x01", "EXT1"),
        (b"}}\x92", "NEWOBJ_EX"),
        (b"Pstorage\n", "PERSID"),
        (b"}2", "DUP"),
        (b"I01\n", "INT"),
        (b"\x97", "NEXT_BUFFER"),
        (b"\xfe", "which is not an opcode"),
        (b"h\x05", "asks for memo 5"),
        (b"", "misses an object"),
        (b"t", "misses a mark"),
        (b"(0", "misses an object"),
        (b"}]s", "misses an object"),
        (b"]K\x01K\x02s", "sets items of a list"),
        (b"}K\x01a", "appends to a dict"),
        (b"}(K\x01u", "a key without a value"),
        (b"X\x02\0\0\0\xff\xff", "not UTF-8"),
    ] {
        check_object(object, says);
    }
    check(&checkpoint(b"(ios\nsystem\n", &[]), "the opcode INST at byte 3, which torch.save does not write");
    check(&checkpoint(b"", &[])[..60], "not a whole PyTorch checkpoint");
    let records = |pickle: &[u8]| zip(&[("data.pkl", pickle.to_vec())], CompressionMethod::STORE);
    check(&records(b"\x80\x06}."), "not of the protocols 2 to 5");
    check(&records(b"(dp0\n."), "not of the protocols 2 to 5");
    check(&records(b"\x80\x02}"), "its pickle ends early");
    check(&records(b""), "its pickle ends early");
    check(b"\x80\x02}q\0K\x01K\x02s.", "a pickle that torch.save did not write");
}

#[test]
fn claims_of_length_are_compared_with_the_file() {
    for (object, says) in [
        (&[&[0x8b][..], &i32::MAX.to_le_bytes(), b"x"].concat(), "2147483647 bytes are needed"),
        (&[&[0x8b][..], &(-1i32).to_le_bytes()].concat(), "an int of a negative length"),
        (&[&[0x8d][..], &u64::MAX.to_le_bytes()].concat(), "18446744073709551615 bytes are needed"),
        (&[&[0x8d][..], &(1u64 << 40).to_le_bytes()].concat(), "1099511627776 bytes are needed"),
        (&[&[0x8e][..], &(1u64 << 62).to_le_bytes()].concat(), "bytes are needed"),
        (&[b"X", &u32::MAX.to_le_bytes()[..]].concat(), "4294967295 bytes are needed"),
        (&[b"T", &u32::MAX.to_le_bytes()[..]].concat(), "4294967295 bytes are needed"),
        (&[b"c", &b"a".repeat(600)[..]].concat(), "a name of more than 512 bytes"),
    ] {
        check_object(object, says);
    }
    // A storage of 2^61 floats, in a file of 600 bytes.
    let huge = dict(&[("weight", tensor(storage("FloatStorage", "0", 1 << 61), 0, &[1 << 61], &[1]))]);
    check(
        &checkpoint(&huge, &[("0", floats(4))]),
        "the storage 0 has 16 bytes, its tensors say 9223372036854775808",
    );
    check(&legacy(&huge, &[("0", 1 << 61, floats(4))]), "within a storage that ends at byte");
    let negative = dict(&[("weight", tensor(storage("FloatStorage", "0", -4), 0, &[1], &[1]))]);
    check_object(&negative, "a storage with arguments");
    let overflow = dict(&[("weight", tensor(storage("DoubleStorage", "0", i64::MAX), 0, &[1], &[1]))]);
    check_object(&overflow, "a storage with arguments");
}

#[test]
fn views_stay_within_their_storages() {
    for (offset, shape, strides, says) in [
        (1, &[4][..], &[1][..], "in a storage of 4 elements"),
        (100, &[1], &[1], "from element 100 on"),
        (i64::MAX, &[1], &[1], "in a storage of 4 elements"),
        (0, &[2, 3], &[3, 1], "a tensor of the shape [2, 3], strides [3, 1]"),
        (0, &[2], &[i64::MAX], "in a storage of 4 elements"),
        (0, &[3], &[i64::MAX], "in a storage of 4 elements"),
        (0, &[i64::MAX, i64::MAX], &[0, 0], "in a storage of 4 elements"),
        (0, &[0, i64::MAX, i64::MAX], &[1, 1, 1], "in a storage of 4 elements"),
        (-1, &[1], &[1], "from element -1 on"),
        (0, &[-2], &[1], "the shape [-2]"),
        (3, &[4], &[-1], "negative strides, [-1]"),
        (0, &[2, 2], &[2], "2 dimensions with 1 strides"),
        (0, &[1; 65], &[1; 65], "65 dimensions"),
        (0, &[1 << 30], &[0], "an expanded view: a tensor of 4294967296 bytes of a storage of 16"),
    ] {
        check(&one(offset, shape, strides), says);
    }
    // Each a view of the same MiB.
    let shared: Vec<(String, Vec<u8>)> = (0..200)
        .map(|i| (format!("w{i}"), tensor(storage("FloatStorage", "0", 1 << 18), 0, &[1 << 18], &[1])))
        .collect();
    let shared: Vec<(&str, Vec<u8>)> =
        shared.iter().map(|(name, made)| (name.as_str(), made.clone())).collect();
    check(
        &checkpoint(&dict(&shared), &[("0", floats(1 << 18))]),
        "tensors of 209715200 bytes that share storages",
    );
    let unread = dict(&[("freqs", tensor(storage("ComplexFloatStorage", "0", 2), 0, &[2], &[1]))]);
    check(&checkpoint(&unread, &[("0", floats(4))]), "freqs has the type complex64");
    let twice = dict(&[
        ("a", tensor(storage("FloatStorage", "0", 4), 0, &[4], &[1])),
        ("b", tensor(storage("FloatStorage", "0", 5), 0, &[5], &[1])),
    ]);
    check(&checkpoint(&twice, &[("0", floats(4))]), "the storage 0 has 16 bytes, later 20");
}

#[test]
fn nesting_and_circles_end() {
    let deep = b"]".repeat(200).into_iter().chain(b"a".repeat(199)).collect::<Vec<_>>();
    check_object(&deep, "containers nested more than 100 deep");
    let tuples = [b")".to_vec(), vec![0x85; 10_000]].concat();
    check_object(&tuples, "containers nested more than 100 deep");
    check_object(&b"(".repeat(50_000), "containers nested more than 1000 deep");
    // A list that holds itself, and a dict that holds itself in a tuple.
    check_object(b"]q\0h\0a", "an object that contains itself");
    check_object(b"}q\0K\x01h\0\x85s", "an object that contains itself");
    // Each list is twice the one before: 2^60 elements of 60 lists.
    let mut laughs = b"]q\0".to_vec();
    for i in 0..60u8 {
        laughs.extend([b']', b'q', i + 1, b'(', b'h', i, b'h', i, b'e']);
    }
    check_object(&laughs, "a list without named tensors");
    // One dict under a thousand keys, four times over: it is looked into once.
    let many = |inner: Vec<u8>, memo: u8| {
        let keys: Vec<u8> =
            (0..1000).flat_map(|i| [text(&format!("k{i}")), vec![b'h', memo]].concat()).collect();
        [inner, vec![b'q', memo, b'0', b'}', b'('], keys, vec![b'u']].concat()
    };
    let dicts = (1..5).fold(b"}".to_vec(), many);
    check_object(&dicts, "a dict without named tensors");
    // One long list, copied into a set again and again.
    let list = [b"](".to_vec(), b"K\x01".repeat(5000), b"eq\0".to_vec()].concat();
    let set = [global("builtins", "set"), b"q\x01".to_vec(), b"h\x01h\0\x85R".repeat(500)].concat();
    check(&checkpoint(&[list, set].concat(), &[]), "a pickle of more than 2000000 objects");
}

/// Where the central directory has the record of this name.
fn directory_entry(archive: &[u8], name: &str) -> usize {
    let at = archive.windows(name.len()).rposition(|bytes| bytes == name.as_bytes()).unwrap();
    assert_eq!(archive[at - 46..at - 42], *b"PK\x01\x02");
    at - 46
}

#[test]
fn archives_are_what_their_directories_say() {
    let object = dict(&[
        ("a", tensor(storage("FloatStorage", "0", 4), 0, &[4], &[1])),
        ("b", tensor(storage("FloatStorage", "1", 4), 0, &[4], &[1])),
    ]);
    let whole = checkpoint(&object, &[("0", floats(4)), ("1", floats(4))]);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("w.pt"), &whole).unwrap();
    assert_eq!(TensorFile::open(&dir.path().join("w.pt")).unwrap().entries().len(), 2);
    for length in [9, 100, whole.len() / 2, whole.len() - 30, whole.len() - 1] {
        check(&whole[..length], "not a whole PyTorch checkpoint");
    }
    let (first, second) =
        (directory_entry(&whole, "archive/data/0"), directory_entry(&whole, "archive/data/1"));
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    // Both records at the first one's place, as a bomb of overlapping files has them.
    check(&with(second + 42, &whole[first + 42..first + 46]), "records overlap");
    check(&with(second + 42, &u32::MAX.to_le_bytes()[..3]), "not a whole PyTorch checkpoint");
    // Longer than there is, compressed and not.
    let long = 0x7fff_ffffu32.to_le_bytes();
    check(&with(first + 20, &[long, long].concat()), "the record archive/data/0 goes beyond the file");
    check(&with(first + 24, &long), "the record archive/data/0 goes beyond the file");
    // A method that is neither stored nor deflated, and encryption.
    check(&with(first + 10, &[12, 0]), "the record archive/data/0 is encrypted or compressed");
    check(&with(first + 8, &[1, 0]), "the record archive/data/0 is encrypted");
    check(
        &checkpoint(&object, &[("0", floats(4)), ("0", floats(4))]),
        "two records have the name archive/data/0",
    );
    check(&checkpoint(&object, &[("0", floats(4))]), "the storage 1 is missing");
    check(
        &checkpoint(&object, &[("0", floats(4)), ("1", floats(5))]),
        "the storage 1 has 20 bytes, its tensors say 16",
    );
    check(&zip(&[("x.npy", vec![1])], CompressionMethod::STORE), "a zip archive without data.pkl");
    let script = [("data.pkl", pickle(b"}")), ("constants.pkl", pickle(b"}"))];
    check(&zip(&script, CompressionMethod::STORE), "a TorchScript archive");
    let big = [("data.pkl", pickle(b"}")), ("byteorder", b"big".to_vec())];
    check(&zip(&big, CompressionMethod::STORE), "a checkpoint of a big-endian machine");
    // One bit of a tensor: the checksum sees it when the tensor is read.
    let at = whole.windows(14).position(|bytes| bytes == b"archive/data/0").unwrap() + 14 + 2;
    fs::write(dir.path().join("w.pt"), with(at, &[1])).unwrap();
    let file = TensorFile::open(&dir.path().join("w.pt")).unwrap();
    let error = file.read(&file.entries()[0]).unwrap_err().to_string();
    assert!(
        error.contains("w.pt: not a whole PyTorch checkpoint: a record is not what its checksum says"),
        "{error}"
    );
}

/// 200 MiB of zeros in 200 KB.
fn bomb(name: &str) -> Vec<u8> {
    let mut archive = ZipArchiveWriter::new(Vec::new());
    for (record, size) in [("archive/data.pkl", 0), (name, 200usize << 20)] {
        let (mut entry, config) =
            archive.new_file(record).compression_method(CompressionMethod::DEFLATE).start().unwrap();
        let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::fast()));
        if size == 0 {
            std::io::Write::write_all(&mut writer, &pickle(b"}")).unwrap();
        }
        std::io::copy(&mut std::io::Read::take(std::io::repeat(0), size as u64), &mut writer).unwrap();
        let (encoder, described) = writer.finish().unwrap();
        encoder.finish().unwrap();
        entry.finish(described).unwrap();
    }
    archive.finish().unwrap()
}

#[test]
fn bombs_are_not_lit() {
    let bytes = bomb("archive/data/0");
    assert!(bytes.len() < 2 << 20, "{}", bytes.len());
    check(&bytes, "that inflates to 2097152");
    // One that says it is a long pickle and has no room for it.
    let mut long = zip(&[("data.pkl", pickle(b"}"))], CompressionMethod::DEFLATE);
    let at = directory_entry(&long, "archive/data.pkl");
    long[at + 24..at + 28].copy_from_slice(&(60u32 << 20).to_le_bytes());
    check(&long, "the record archive/data.pkl claims more than it can hold");
    // A record that says it is small and is not.
    let object = dict(&[("w", tensor(storage("FloatStorage", "0", 4), 0, &[4], &[1]))]);
    let records = [("data.pkl", pickle(&object)), ("data/0", vec![0; 1 << 20])];
    let mut lying = zip(&records, CompressionMethod::DEFLATE);
    let at = directory_entry(&lying, "archive/data/0");
    lying[at + 24..at + 28].copy_from_slice(&16u32.to_le_bytes());
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("w.pt"), lying).unwrap();
    let file = TensorFile::open(&dir.path().join("w.pt")).unwrap();
    let (read, largest, _) = allocations::of(|| file.read(&file.entries()[0]));
    assert!(read.unwrap_err().to_string().contains("checksum") && largest < 1 << 17, "{largest}");
}

#[test]
fn legacy_files_are_whole() {
    let object = dict(&[("a", tensor(storage("FloatStorage", "0", 4), 0, &[4], &[1]))]);
    let whole = legacy(&object, &[("0", 4, floats(4))]);
    for length in [20, 60, whole.len() - 17, whole.len() - 1] {
        check(&whole[..length], "not a whole PyTorch checkpoint");
    }
    check(&legacy(&object, &[("0", 5, floats(4))]), "the storage 0 has another length");
    check(&legacy(&object, &[("1", 4, floats(4))]), "the storage 1 is of no tensor");
    check(&legacy(&object, &[("0", 4, floats(4)), ("0", 4, floats(4))]), "there twice");
    check(&legacy(&object, &[]), "storages are missing");
    let changed = |from: &[u8], to: &[u8]| {
        let at = whole.windows(from.len()).position(|bytes| bytes == from).unwrap();
        [&whole[..at], to, &whole[at + from.len()..]].concat()
    };
    check(&changed(b"little_endian\x88", b"little_endian\x89"), "a checkpoint of a big-endian machine");
    check(&changed(&integer(1001), &integer(1002)), "another version of torch.save's format than 1001");
}

#[test]
fn other_objects_than_state_dicts_are_named() {
    check_object(b"}", "a dict without named tensors");
    check_object(b"]", "a list without named tensors");
    check_object(&integer(3), "an int without named tensors");
    let numbered = [b"}K\x01".to_vec(), b"K\x02s".to_vec()].concat();
    check_object(&numbered, "a dict without named tensors");
    let two = dict(&[
        ("unet", dict(&[("w", tensor(storage("FloatStorage", "0", 1), 0, &[1], &[1]))])),
        ("vae", dict(&[("w", tensor(storage("FloatStorage", "0", 1), 0, &[1], &[1]))])),
    ]);
    check(&checkpoint(&two, &[("0", floats(1))]), "several networks' weights: `unet`, `vae`");
}

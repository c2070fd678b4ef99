//! The other readers of users' files, given good files with random damage: an error or other values, and no panic.
//!
//! `SYNECHO_FUZZ_SECONDS=3600 cargo test --release --test checkpoints readers -- --nocapture` goes on for an hour.

use std::{
    fmt::Write,
    fs,
    io::Read,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use synecho::{
    experiment,
    manifest::Manifest,
    measure::{frechet::Statistics, npz},
    nn::{
        config::Config,
        schedulers::SchedulerConfig,
        tensor_file::{self, TensorFile},
    },
    picture::Picture,
    scan::{metaimage, nifti},
    vocabulary::Sampler,
};
use tch::{Device, Kind, Tensor};

use crate::allocations;

/// Damaged files of each reader, where no time is set.
const EACH: usize = 400;

/// The largest block that damage may make a reader allocate: far above the files, and above what a claim of 16384 x
/// 16384 pixels would take.
const LARGEST_BLOCK: usize = 1 << 26;

struct Reader {
    name: &'static str,
    good: Vec<u8>,
    /// The name of the file in its folder.
    file: &'static str,
    /// Whether the file in the folder is read to its end.
    read: fn(&Path) -> bool,
}

fn gunzipped(bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut all).unwrap();
    all
}

fn readers() -> Vec<Reader> {
    let picture = Picture { width: 12, height: 10, pixels: (0..120).map(|i| i * 2).collect() };
    let scan = nifti::encode_gz(&picture, 0.3, "a test").unwrap();
    let metaimage = b"ObjectType = Image\nNDims = 2\nBinaryData = True\nBinaryDataByteOrderMSB = False\n\
        CompressedData = False\nElementSpacing = 0.3 0.15\nDimSize = 12 10\nElementType = MET_UCHAR\n\
        ElementDataFile = LOCAL\n";
    let statistics = Statistics {
        n: Some(7),
        mean: Tensor::arange(4, (Kind::Double, Device::Cpu)),
        covariance: Tensor::eye(4, (Kind::Double, Device::Cpu)),
    };
    let tensors = [
        ("a.weight".to_owned(), Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3])),
        ("b".to_owned(), Tensor::arange(3, (Kind::Int64, Device::Cpu))),
    ];
    let mut manifest = "patient,view,phase,image,mask,split,age,ef,spacing_x,spacing_y,seed\n".to_owned();
    for i in 0..6 {
        let _ =
            writeln!(manifest, "\"p {i}\",2CH,ED,images/{i}.png,masks/{i}.png,train,5{i},4.5,0.3,0.15,{i}");
    }
    let spec = "[experiment]\nname = \"a\"\nseeds = [0, 1]\n[data]\nsource = \"phantom\"\nphantom = { patients = 10 }\n\
        [[arms]]\nname = \"real\"\n[[arms]]\nname = \"more\"\nsynthetic = \"a\"\nratio = [0.5, 1.0]\n\
        [tasks.segmentation]\nepochs = 3\nlearning_rate = 1e-3\n[generators.a]\nmode = \"text+segmentation\"\nsteps = 9\n";
    let mut png = std::io::Cursor::new(Vec::new());
    image::GrayImage::from_fn(12, 10, |x, y| image::Luma([(x * y) as u8]))
        .write_to(&mut png, image::ImageFormat::Png)
        .unwrap();
    let scheduler = SchedulerConfig::read(
        &Config::parse(
            &format!("{{\"_class_name\": {:?}}}", Sampler::DpmSolver.class_name()),
            Path::new("c"),
        )
        .unwrap(),
    );
    let nifti: fn(&Path) -> bool =
        |p| nifti::read(p).is_ok_and(|s| s.to_image().is_ok() | s.to_mask().is_ok());
    vec![
        Reader { name: "NIfTI", good: gunzipped(&scan), file: "a.nii", read: nifti },
        Reader { name: "NIfTI, packed", good: scan, file: "a.nii.gz", read: nifti },
        Reader {
            name: "MetaImage",
            good: [&metaimage[..], &picture.pixels].concat(),
            file: "a.mha",
            read: |p| metaimage::read(p).is_ok_and(|s| s.to_image().is_ok() | s.to_mask().is_ok()),
        },
        Reader {
            name: "npz",
            good: npz::to_bytes(&statistics).unwrap(),
            file: "a.npz",
            read: |p| npz::read(p).is_ok(),
        },
        Reader {
            name: "safetensors",
            good: tensor_file::to_bytes(&tensors, None).unwrap(),
            file: "a.safetensors",
            read: |p| TensorFile::open(p).is_ok_and(|f| f.entries().iter().all(|e| f.read(e).is_ok())),
        },
        Reader {
            name: "manifest",
            good: manifest.into_bytes(),
            file: "manifest.csv",
            read: |p| Manifest::read(p.parent().unwrap()).is_ok(),
        },
        Reader {
            name: "spec",
            good: spec.as_bytes().to_vec(),
            file: "a.toml",
            read: |p| experiment::load(p, &[], false).is_ok(),
        },
        Reader {
            name: "scheduler",
            good: scheduler.unwrap().to_json().to_string().into_bytes(),
            file: "scheduler_config.json",
            read: |p| Config::read(p).and_then(|c| SchedulerConfig::read(&c)).is_ok(),
        },
        Reader {
            name: "picture",
            good: png.into_inner(),
            file: "a.png",
            read: |p| Picture::read(p).is_ok() | Picture::read_mask(p).is_ok(),
        },
    ]
}

/// Digits and marks of the formats, so that numbers and structures change, and not only single bytes.
const WORDS: [&[u8]; 16] = [
    b"0",
    b"-1",
    b"9999999999",
    b"1e400",
    b"nan",
    b"\"",
    b"{",
    b"]",
    b",",
    b"\n",
    b"\r\n",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\0\0\0\0",
    b"\x7f\xff\xff\xff",
    b"=",
];

fn damaged(good: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..random.random_range(1..=4) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        let until = random.random_range(at..bytes.len().min(at + 12)) + 1;
        match random.random_range(0..7) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 => bytes.truncate(at),
            3 => drop(bytes.splice(at..at, WORDS[random.random_range(0..WORDS.len())].iter().copied())),
            4 => drop(bytes.splice(at..until, WORDS[random.random_range(0..WORDS.len())].iter().copied())),
            5 => drop(bytes.drain(at..until)),
            _ => {
                let part = bytes[at..until].to_vec();
                let to = random.random_range(0..=bytes.len());
                drop(bytes.splice(to..to, part));
            }
        }
    }
    bytes
}

#[test]
fn damage_of_any_file_is_no_panic_and_no_great_allocation() {
    let seconds: Option<u64> = std::env::var("SYNECHO_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(0));
    let dir = tempfile::tempdir().unwrap();
    let readers = readers();
    for reader in &readers {
        let path = dir.path().join(reader.file);
        fs::write(&path, &reader.good).unwrap();
        assert!((reader.read)(&path), "{}: the good file", reader.name);
    }
    let mut counts = vec![(0usize, 0usize); readers.len()];
    for round in 0u64.. {
        for (reader, (tried, refused)) in readers.iter().zip(&mut counts) {
            let path = dir.path().join(reader.file);
            let mut random = ChaCha8Rng::seed_from_u64(2026 + round);
            for number in 0..EACH {
                let bytes = damaged(&reader.good, &mut random);
                fs::write(&path, &bytes).unwrap();
                let read = || catch_unwind(AssertUnwindSafe(|| (reader.read)(&path)));
                let (was_read, largest, _) = allocations::of(read);
                let place = format!(
                    "{}, round {round}, file {number}: {:?}",
                    reader.name,
                    String::from_utf8_lossy(&bytes)
                );
                // A picture's header may ask for as many pixels as the decoder allows.
                assert!(largest < LARGEST_BLOCK || reader.name == "picture", "{largest} bytes: {place}");
                *tried += 1;
                *refused += usize::from(!was_read.unwrap_or_else(|_| panic!("a panic: {place}")));
            }
        }
        if Instant::now() >= end {
            break;
        }
    }
    for (reader, (tried, refused)) in readers.iter().zip(counts) {
        println!("{}: {tried} files, {refused} refused", reader.name);
        assert!(refused * 10 > tried && refused < tried, "{}: {refused} of {tried}", reader.name);
    }
}

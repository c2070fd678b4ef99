//! Good checkpoints with random damage: whatever comes of it, it is no panic and no great allocation.

use std::{fs, path::Path};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use synecho::nn::tensor_file::TensorFile;

use crate::{allocations, fixtures};

/// Damaged files of each fixture.
const EACH: usize = 300;

fn damaged(bytes: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..6) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)],
            2 => {
                bytes[at] = b"NKMJGXU}](te.usaqhrjcRbQ\x81\x85\x86\x87\x93\x94\x8a\x8b\x8d"
                    [random.random_range(0..33)]
            }
            3 => bytes.truncate(at.max(16)),
            4 => bytes.insert(at, random.random()),
            _ => {
                bytes.remove(at);
            }
        }
    }
    bytes
}

/// The damaged checkpoint opened and read as far as it goes; whether that is to its end.
fn read(path: &Path) -> bool {
    let Ok(file) = TensorFile::open(path) else { return false };
    let mut whole = true;
    for entry in file.entries() {
        whole &= file.read(entry).is_ok();
    }
    whole
}

#[test]
fn damage_is_an_error_or_other_values_and_nothing_worse() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.pt");
    let mut random = ChaCha8Rng::seed_from_u64(2026);
    let mut names: Vec<_> = fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let (mut tried, mut refused) = (0, 0);
    for name in names {
        let whole = fs::read(&name).unwrap();
        for number in 0..EACH {
            let bytes = damaged(&whole, &mut random);
            fs::write(&path, &bytes).unwrap();
            let (was_read, largest, _) = allocations::of(|| read(&path));
            assert!(largest < 1 << 22, "{} {number}: {largest} bytes", name.display());
            tried += 1;
            refused += usize::from(!was_read);
        }
    }
    assert!(tried >= 4000, "{tried}");
    // Damage of the zip's padding or of a dead name changes nothing; most does.
    assert!(refused * 2 > tried && refused < tried, "{refused} of {tried}");
}

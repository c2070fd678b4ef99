use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{manifest::Row, vocabulary::Split};

const SIZE: usize = 64;

/// Greys 64 to 191, each pixel for itself; variance (128^2 - 1) / 12.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..size * size).map(|_| rng.random_range(64..192)).collect()
}

const VARIANCE: f64 = (128.0 * 128.0 - 1.0) / 12.0;

/// Noise in a disc, black around it.
fn disc(seed: u64, radius: f64) -> Vec<u8> {
    let mut image = noise(seed, SIZE);
    for (at, grey) in image.iter_mut().enumerate() {
        let (x, y) = ((at % SIZE) as f64 - 31.5, (at / SIZE) as f64 - 31.5);
        if x.hypot(y) > radius {
            *grey = 0;
        }
    }
    image
}

/// Mean of 3 x 3 pixels (fewer at the border).
fn blur(image: &[u8]) -> Vec<u8> {
    let size = image.len().isqrt();
    let near = |v: usize| v.saturating_sub(1)..=(v + 1).min(size - 1);
    (0..image.len())
        .map(|at| {
            let around = near(at / size).flat_map(|y| near(at % size).map(move |x| (x, y)));
            let greys: Vec<u32> = around.map(|(x, y)| u32::from(image[y * size + x])).collect();
            (f64::from(greys.iter().sum::<u32>()) / greys.len() as f64).round() as u8
        })
        .collect()
}

fn list(images: &[Vec<u8>]) -> Vec<&[u8]> {
    images.iter().map(Vec::as_slice).collect()
}

fn set<'a>(name: &str, images: &'a [Vec<u8>]) -> Set<'a> {
    Set::new(name, list(images).into_iter().map(|image| (Class(None), image)))
}

fn ratios(real: &[Vec<u8>], synthetic: &[Vec<u8>]) -> Octaves {
    compare(&set("r", real), &set("s", synthetic), SIZE).unwrap()[&Class(None)].ratios()
}

#[test]
fn the_same_images_give_exactly_one() {
    let images: Vec<_> = (0..7).map(|i| disc(i, 28.0)).collect();
    assert_eq!(ratios(&images, &images), [1.0; 4]);
}

#[test]
fn blurring_lowers_the_top_octave_and_leaves_the_lowest() {
    let images: Vec<_> = (0..12).map(|i| disc(i, 28.0)).collect();
    let blurred: Vec<_> = images.iter().map(|image| blur(image)).collect();
    let [top, second, _, lowest] = ratios(&images, &blurred);
    assert!(
        top < 0.1 && top < second && second < 0.6 && (0.85..1.0).contains(&lowest),
        "{top} {second} {lowest}"
    );
    let [top, .., lowest] = ratios(&blurred, &images);
    assert!(top > 10.0 && top > 10.0 * lowest, "the other way round it is grain: {top} {lowest}");
}

#[test]
fn the_edge_of_the_sector_does_not_hide_that_speckle_is_missing() {
    let images: Vec<_> = (0..12).map(|i| disc(i, 28.0)).collect();
    // Brightness that falls from left to right, and no speckle.
    let smooth: Vec<u8> =
        (0..SIZE * SIZE).map(|at| if images[0][at] > 0 { 200 - 2 * (at % SIZE) as u8 } else { 0 }).collect();
    let [top, second, ..] = ratios(&images, std::slice::from_ref(&smooth));
    assert!(top < 2e-3 && second < 0.1, "{top} {second}");
    // Without the taper the edge alone looks like speckle.
    let mask: Vec<f64> = images[0].iter().map(|&grey| f64::from(grey.min(1))).collect();
    let hard = |images: &[&[u8]]| octaves(&radial_power(images, SIZE, &mask).unwrap(), SIZE)[0];
    let hard = hard(&[&smooth]) / hard(&list(&images));
    assert!(hard > 10.0 * top, "{hard} {top}");
}

#[test]
fn white_noise_has_its_variance_at_every_frequency() {
    let images: Vec<_> = (0..60).map(|i| disc(i, 28.0)).collect();
    let window = window(&sector(&list(&images), SIZE).unwrap(), SIZE).unwrap();
    for power in octaves(&radial_power(&list(&images), SIZE, &window).unwrap(), SIZE) {
        assert!((power / VARIANCE - 1.0).abs() < 0.1, "{power} {VARIANCE}");
    }
    // And a wave has its power in its own octave alone: 8 cycles at 64 pixels, 8 pixels long.
    let wave: Vec<u8> = (0..SIZE * SIZE)
        .map(|at| (128.0 + 100.0 * (std::f64::consts::TAU * (at / SIZE) as f64 / 8.0).sin()).round() as u8)
        .collect();
    let [top, second, third, _] =
        octaves(&radial_power(&[wave.as_slice()], SIZE, &vec![1.0; SIZE * SIZE]).unwrap(), SIZE);
    assert!(third > 1e4 * top && third > 1e4 * second, "8 cycles are in (N/16, N/8]: {top} {second} {third}");
}

#[test]
fn octaves_share_all_rings_without_overlap() {
    for size in [32, 33, 45, 64, 224, 255, 256] {
        let ring = |k: usize| {
            octaves(&(0..=size / 2).map(|j| f64::from(u8::from(j == k))).collect::<Vec<_>>(), size)
        };
        for k in 0..=size / 2 {
            let hits = ring(k).iter().filter(|v| **v > 0.0).count();
            assert_eq!(hits, usize::from(32 * k > size), "ring {k} of {size}");
        }
        assert!(octaves(&vec![3.0; size / 2 + 1], size) == [3.0; 4], "no octave of {size} is empty");
    }
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    let images: Vec<_> = (0..7).map(|i| disc(i, 28.0)).collect();
    let window = window(&sector(&list(&images), SIZE).unwrap(), SIZE).unwrap();
    let by = |batch| radial_power_by(&list(&images), SIZE, &window, batch).unwrap();
    let one = by(1);
    for batch in [2, 3, 7, 100] {
        for (k, (a, b)) in one.iter().zip(by(batch)).enumerate().skip(1) {
            assert!((a / b - 1.0).abs() < 1e-12, "ring {k}, {batch} at a time");
        }
    }
}

#[test]
fn the_sector_is_what_nine_in_ten_show_and_what_that_encloses() {
    let mut images: Vec<_> = (0..20).map(|i| disc(i, 20.0)).collect();
    let middle = 32 * SIZE + 32;
    for image in &mut images {
        image[middle] = 0; // a black cavity
    }
    let expected: Vec<bool> = disc(0, 20.0).iter().map(|&grey| grey > 0).collect();
    for wide in 0..4 {
        // Two of twenty that are wider, or narrower, change nothing.
        images[..wide].iter_mut().enumerate().for_each(|(i, image)| *image = disc(i as u64, 30.0));
        assert_eq!(sector(&list(&images), SIZE).unwrap(), expected);
    }
    let narrow = disc(0, 10.0);
    images[4] = narrow.clone();
    images[5] = narrow.clone();
    assert_eq!(sector(&list(&images), SIZE).unwrap(), expected);
    images[6] = narrow;
    assert_ne!(sector(&list(&images), SIZE).unwrap(), expected, "three of twenty are too many");
    // Traces of JPEG are black.
    let faint = vec![5u8; SIZE * SIZE];
    assert!(sector(&[&faint], SIZE).unwrap().iter().all(|inside| !inside));
}

#[test]
fn the_window_rises_with_the_distance_to_the_edge() {
    let full = window(&vec![true; SIZE * SIZE], SIZE).unwrap();
    let rise: Vec<f64> = (1..=4).map(|d| (FRAC_PI_2 * f64::from(d) / 4.0).sin().powi(2)).collect();
    assert_eq!(&full[32 * SIZE..][..4], &rise[..], "the border is an edge");
    assert_eq!(full[3 * SIZE + 60], 1.0, "four from the top and from the right");
    assert_eq!(full[0], rise[0]);
    // One pixel outside: around it by Euclid, not by columns and rows alone.
    let mut sector = vec![true; SIZE * SIZE];
    sector[32 * SIZE + 32] = false;
    let weights = window(&sector, SIZE).unwrap();
    assert_eq!(weights[32 * SIZE + 32], 0.0);
    for (dx, dy) in [(1, 0), (0, 2), (1, 1), (2, 3), (3, 2), (3, 3)] {
        let d = f64::from(dx * dx + dy * dy).sqrt().min(4.0);
        let expected = (FRAC_PI_2 * d / 4.0).sin().powi(2);
        for at in [(32 + dy) * 64 + 32 + dx, (32 - dy) * 64 + 32 - dx] {
            assert!((weights[at as usize] - expected).abs() < 1e-15, "{dx} {dy}");
        }
    }
}

fn samples(size: usize, images: impl IntoIterator<Item = (View, Phase, Vec<u8>)>) -> Samples {
    let mut samples = Samples { size, images: vec![], masks: vec![], rows: vec![], ids: vec![] };
    for (view, phase, image) in images {
        samples.images.extend(image);
        samples.ids.push(samples.rows.len() as u64);
        samples.rows.push(Row {
            split: Some(Split::Val),
            ..Row::new(format!("p{}", samples.rows.len()), view, phase, "i.png")
        });
    }
    samples
}

#[test]
fn measurements_have_each_class_and_all_of_them() {
    use {Phase::*, View::*};
    // The classes differ in texture, and the two sets in their mix.
    let image = |class, seed| match class {
        (TwoChamber, Ed) => disc(seed, 28.0),
        _ => blur(&disc(seed, 28.0)),
    };
    let make = |first: u64, counts: [usize; 2]| {
        let classes = [(TwoChamber, Ed), (FourChamber, Es)].into_iter().zip(counts);
        samples(
            SIZE,
            classes
                .flat_map(|(class, n)| std::iter::repeat_n(class, n))
                .zip(first..)
                .map(|(class, seed)| (class.0, class.1, image(class, seed))),
        )
    };
    let (real, synthetic) = (make(0, [30, 10]), make(100, [10, 30]));
    let rows = measurements(&real, &synthetic).unwrap();
    let seen: Vec<_> =
        rows.iter().map(|r| (r.view.as_str(), r.phase.as_str(), r.structure.as_str(), r.n)).collect();
    let expected: Vec<_> = [("2CH", "ED", Some(10)), ("4CH", "ES", Some(30)), ("", "", Some(40))]
        .into_iter()
        .flat_map(|(view, phase, n)| OCTAVES.map(|octave| (view, phase, octave, n)))
        .collect();
    assert_eq!(seen, expected);
    for row in &rows {
        assert_eq!(
            (row.task.as_str(), row.metric.as_str(), row.split.as_str()),
            ("generation", "texture", "val")
        );
        // Three times as many smooth images would be 0.4 of the power if the mix counted.
        assert!((0.75..1.3).contains(&row.value), "{row:?}");
    }
    let same = measurements(&real, &real).unwrap();
    assert!(same.len() == 12 && same.iter().all(|row| row.value == 1.0));
}

#[test]
fn what_cannot_be_compared_is_refused_with_a_reason() {
    use {Phase::*, View::*};
    let one = |view, phase| samples(SIZE, [(view, phase, disc(1, 28.0))]);
    let e = measurements(&one(TwoChamber, Ed), &samples(40, [(TwoChamber, Ed, noise(1, 40))])).unwrap_err();
    assert!(e.to_string().contains("the real images are 64 x 64 pixels, the synthetic 40 x 40"), "{e}");
    let e = measurements(&one(TwoChamber, Ed), &one(FourChamber, Ed)).unwrap_err().to_string();
    assert!(
        e.contains("the synthetic images: no image of class 2CH ED, of which there are 1 in the real images"),
        "{e}"
    );
    let both = samples(SIZE, [(TwoChamber, Ed, disc(1, 28.0)), (TwoChamber, Es, disc(2, 28.0))]);
    let e = measurements(&one(TwoChamber, Ed), &both).unwrap_err().to_string();
    assert!(e.contains("the real images: no image of class 2CH ES"), "{e}");

    let good = vec![disc(1, 28.0)];
    let refused = |real: &[Vec<u8>], synthetic: &[Vec<u8>], size: usize, words: &str| {
        let e = compare(&set("r", real), &set("s", synthetic), size).unwrap_err();
        assert!(e.to_string().contains(words) && e.to_string().contains("help: "), "{e}");
        assert_eq!(e.exit_code(), 2);
    };
    refused(&[], &good, SIZE, "r: there are no images");
    refused(&good, &[], SIZE, "s: there are no images");
    refused(&good, &[vec![9; 5]], SIZE, "s: class all: an image has 5 pixels, not 64 x 64");
    refused(&[vec![9; 5]], &good, SIZE, "r: class all: an image has 5 pixels");
    refused(&[vec![9; 31 * 31]], &[vec![9; 31 * 31]], 31, "the images are 31 x 31 pixels");
    refused(&[vec![0; SIZE * SIZE]], &good, SIZE, "r: class all: the real images share no sector");
    refused(&[vec![77; SIZE * SIZE]], &good, SIZE, "r: class all: the real images have no texture at 2-4 px");
    assert!(radial_power(&list(&good), SIZE, &[1.0; 4]).is_err());
    assert!(radial_power(&list(&good), SIZE, &[0.0; SIZE * SIZE]).is_err());
}

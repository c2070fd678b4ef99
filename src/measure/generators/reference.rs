//! Images that tell what a distance means: real ones of other patients, blurred real ones, noise. A generator is
//! as good as its distance is near to the first and far from the last.

use rand::{Rng, seq::SliceRandom};
use rayon::prelude::*;

use crate::{random, samples::Samples, vocabulary::Label};

/// What results call them (column `arm`).
pub const HALVES: &str = "real against real (two halves)";
pub const HELD_OUT: &str = "held-out real";
pub const BLURRED: &str = "blurred real";
pub const NOISE: &str = "noise";
pub const ALL: [&str; 4] = [HALVES, HELD_OUT, BLURRED, NOISE];

/// Two halves of the patients, drawn by the seed.
pub fn halves(real: &Samples, seed: u64) -> (Samples, Samples) {
    let mut patients: Vec<&str> = real.rows.iter().map(|row| row.patient.as_str()).collect();
    patients.sort_unstable();
    patients.dedup();
    patients.shuffle(&mut random::rng(seed, "halves", &[]));
    let first: Vec<&str> = patients[..patients.len() / 2].to_vec();
    let is_first = |patient: &str| first.contains(&patient);
    (real.filtered(|row| is_first(&row.patient)), real.filtered(|row| !is_first(&row.patient)))
}

/// At most `per_class` images of each view and phase, drawn by the seed, in their order.
pub fn few(samples: &Samples, per_class: usize, seed: u64) -> Samples {
    let labels = samples.labels(Label::ViewPhase);
    let mut chosen = Vec::new();
    for class in 0..Label::ViewPhase.classes().len() {
        let mut of_class: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == class).collect();
        of_class.shuffle(&mut random::rng(seed, "few", &[class as u64]));
        of_class.truncate(per_class);
        chosen.extend(of_class);
    }
    chosen.sort_unstable();
    samples.chosen(&chosen)
}

/// The images under a Gaussian whose standard deviation is a 64th of their side (2 pixels of 128): the anatomy
/// stays, the speckle goes.
pub fn blurred(samples: &Samples) -> Samples {
    let (size, sigma) = (samples.size, samples.size as f64 / 64.0);
    let reach = (3.0 * sigma).ceil() as usize;
    let kernel: Vec<f64> =
        (0..=2 * reach).map(|i| (-0.5 * ((i as f64 - reach as f64) / sigma).powi(2)).exp()).collect();
    let sum: f64 = kernel.iter().sum();
    // Beyond the border lies the border's pixel.
    let at = |i: usize, k: usize| (i + k).saturating_sub(reach).min(size - 1);
    let line = |value: &dyn Fn(usize) -> f64, i: usize| -> f64 {
        kernel.iter().enumerate().map(|(k, weight)| weight * value(at(i, k))).sum::<f64>() / sum
    };
    let mut blurred = samples.clone();
    blurred.images.par_chunks_exact_mut(size * size).for_each(|image| {
        let grey: Vec<f64> = image.iter().map(|&v| f64::from(v)).collect();
        let rows: Vec<f64> =
            (0..size * size).map(|p| line(&|x| grey[p / size * size + x], p % size)).collect();
        for (p, pixel) in image.iter_mut().enumerate() {
            *pixel = line(&|y| rows[y * size + p % size], p / size).round_ties_even() as u8;
        }
    });
    blurred
}

/// Uniform noise in the place of every pixel.
pub fn noise(samples: &Samples, seed: u64) -> Samples {
    let mut noise = samples.clone();
    let pixels = samples.size * samples.size;
    for (i, image) in (0u64..).zip(noise.images.chunks_exact_mut(pixels)) {
        let mut rng = random::rng(seed, "noise image", &[i]);
        image.iter_mut().for_each(|v| *v = rng.random());
    }
    noise
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        manifest::Row,
        vocabulary::{Phase, Split, View},
    };

    /// `patients` x 2 views x 2 phases of `size` x `size` pixels.
    pub fn samples(patients: usize, size: usize) -> Samples {
        let classes = View::ALL.iter().flat_map(|&v| Phase::ALL.iter().map(move |&p| (v, p)));
        let rows: Vec<Row> = (0..patients)
            .flat_map(|i| classes.clone().map(move |class| (i, class)))
            .map(|(i, (view, phase))| Row {
                split: Some(Split::Train),
                ..Row::new(format!("p{i}"), view, phase, format!("images/p{i}_{view}_{phase}.png"))
            })
            .collect();
        let n = rows.len();
        let images = (0..n * size * size).map(|at| (at * at % 251) as u8).collect();
        Samples { size, images, masks: vec![], rows, ids: (0..n as u64).collect() }
    }

    #[test]
    fn halves_share_no_patient_and_lose_none() {
        let all = samples(7, 4);
        let (a, b) = halves(&all, 3);
        let of = |s: &Samples| s.rows.iter().map(|r| r.patient.clone()).collect::<BTreeSet<_>>();
        assert!(of(&a).is_disjoint(&of(&b)));
        assert_eq!((a.len(), b.len()), (12, 16));
        assert_eq!(of(&halves(&all, 3).0), of(&a));
        assert_ne!(of(&halves(&all, 4).0), of(&a));
    }

    #[test]
    fn few_are_as_many_as_asked_of_each_class() {
        let all = samples(6, 4);
        let labels = few(&all, 2, 0).labels(Label::ViewPhase);
        assert_eq!([0, 1, 2, 3].map(|c| labels.iter().filter(|l| **l == c).count()), [2; 4]);
        assert_eq!(few(&all, 100, 0).images, all.images);
    }

    #[test]
    fn a_blur_keeps_flat_images_and_takes_the_speckle_of_others() {
        let mut all = samples(1, 64);
        all.images[..64 * 64].fill(77);
        let soft = blurred(&all);
        assert_eq!(soft.image(0), all.image(0));
        let steps = |image: &[u8]| image.windows(2).map(|w| w[0].abs_diff(w[1]) as u64).sum::<u64>();
        assert!(steps(soft.image(1)) * 3 < steps(all.image(1)));
        let mean = |image: &[u8]| image.iter().map(|&v| f64::from(v)).sum::<f64>() / image.len() as f64;
        assert!((mean(soft.image(1)) - mean(all.image(1))).abs() < 2.0);
    }

    #[test]
    fn noise_knows_nothing_of_the_image_and_is_another_in_each() {
        let all = samples(1, 32);
        let found = noise(&all, 5);
        assert_eq!(found.rows, all.rows);
        assert_ne!(found.image(0), found.image(1));
        assert_eq!(noise(&all, 5).images, found.images);
        let mut other = all.clone();
        other.images.fill(0);
        assert_eq!(noise(&other, 5).images, found.images);
    }
}

//! How far the images of a generator are from real ones: what [`frechet`], [`kid`], [`prdc`] and
//! [`memorisation`] say of their features, as rows of results; and [`mod@reference`], the images
//! that tell what such a figure means.

pub mod all;
pub mod folders;
pub mod reference;

use std::collections::BTreeMap;

use tch::Tensor;

use super::{
    arrays::SYNTHETIC,
    authenticity::authenticity,
    frechet::{
        frechet,
        resample::{Extrapolation, Halves, extrapolated, interval},
    },
    kid::{Subsets, kid},
    memorisation::memorisation,
    mind::{Directions, mind},
    prdc::prdc,
    texture::Class,
    vendi::vendi,
};
use crate::{
    error::Result,
    experiment::Measure,
    manifest::Row,
    results::{Measurement, NearestPair},
    samples::Samples,
    vocabulary::{GeneratorMeasure, Metric, Statistic, Task},
};

/// Images with their features (n, d), a row an image.
pub struct Images {
    pub samples: Samples,
    pub features: Tensor,
}

/// Fewer have no halves to draw an interval from.
const LEAST_PATIENTS: usize = 4;

/// Fewer synthetic images are not extrapolated from.
const LEAST_TO_EXTRAPOLATE: usize = 100;

/// Distances of `synthetic` to `real`, of each class (`view` and `phase` filled in) that both have, then over all.
/// `structure` is the extractor, `n` the synthetic images, `split` that of the real ones; the number of real
/// images is a row of its own (`n_real`). Of a class with too few images for a measure there is no row.
///
/// # Errors
/// Features that are not finite, or too few images over all.
pub fn distances(measure: &Measure, real: &Images, synthetic: &Images) -> Result<Vec<Measurement>> {
    let mut rows = Vec::new();
    let (of_real, of_synthetic) = (by_class(&real.samples), by_class(&synthetic.samples));
    for (class, there) in &of_synthetic {
        let least = measure.neighbours + 1;
        let Some(here) = of_real.get(class).filter(|here| here.len() >= least && there.len() >= least) else {
            continue;
        };
        let pick = |images: &Images, which: &[i64]| -> Result<Tensor> {
            Ok(images.features.f_index_select(0, &Tensor::f_from_slice(which)?)?)
        };
        let (a, b) = (pick(real, here)?, pick(synthetic, there)?);
        rows.extend(values(measure, *class, &a, &b)?);
    }
    rows.extend(values(measure, Class(None), &real.features, &synthetic.features)?);
    if measure.generators.contains(&GeneratorMeasure::Fid) {
        rows.extend(uncertainty(measure, real, synthetic)?);
    }
    let split = split_of(&real.samples);
    rows.iter_mut().for_each(|row| row.split.clone_from(&split));
    Ok(rows)
}

/// What stands in a row of `class` for all measures.
fn row(measure: &Measure, class: Class, metric: impl Into<String>, value: f64, n: i64) -> Measurement {
    let (view, phase) = class.0.map(|(v, p)| (v.to_string(), p.to_string())).unwrap_or_default();
    Measurement {
        task: Task::Generation.into(),
        view,
        phase,
        structure: measure.extractor.words(),
        metric: metric.into(),
        value,
        n: Some(n as u64),
        ..Measurement::default()
    }
}

fn values(measure: &Measure, class: Class, real: &Tensor, synthetic: &Tensor) -> Result<Vec<Measurement>> {
    let (n_real, n) = (real.size()[0], synthetic.size()[0]);
    let row = |metric: Metric, value: f64| row(measure, class, metric, value, n);
    let derived =
        |metric: Metric, statistic, value| self::row(measure, class, metric.with(statistic), value, n);
    let mut rows = vec![row(Metric::RealCount, n_real as f64)];
    for wanted in &measure.generators {
        match wanted {
            GeneratorMeasure::Fid => {
                rows.push(row(measure.extractor.name.frechet(), frechet(real, synthetic)?.value));
            }
            GeneratorMeasure::Kid => {
                let size = measure.kid_subset_size.min(n_real.min(n) as usize);
                let subsets =
                    Subsets { count: measure.kid_subsets, size: Some(size), seed: measure.seed as u32 };
                let found = kid(real, synthetic, &subsets)?;
                rows.push(row(Metric::Kid, found.value));
                rows.push(derived(Metric::Kid, Statistic::StandardError, found.standard_error));
                rows.push(derived(Metric::Kid, Statistic::SubsetSize, size as f64));
            }
            // Too few images have no such neighbours: there is no row then.
            GeneratorMeasure::Prdc if n_real.min(n) as usize <= measure.neighbours => {}
            GeneratorMeasure::Prdc => {
                let found = prdc(real, synthetic, measure.neighbours)?;
                rows.push(row(Metric::ManifoldPrecision, found.precision));
                rows.push(row(Metric::ManifoldRecall, found.recall));
                rows.push(row(Metric::Density, found.density));
                rows.push(row(Metric::Coverage, found.coverage));
            }
            GeneratorMeasure::Mind => {
                let directions = Directions { seed: measure.seed as u32, ..Directions::default() };
                rows.push(row(Metric::Mind, mind(real, synthetic, &directions)?.value));
            }
            GeneratorMeasure::Authenticity => {
                rows.push(row(Metric::Authenticity, authenticity(real, synthetic)?.percent));
            }
            GeneratorMeasure::Vendi => rows.push(row(Metric::Vendi, vendi(synthetic, SYNTHETIC)?.value)),
            // Of all classes together, by `memorised`.
            GeneratorMeasure::Memorisation => {}
        }
    }
    Ok(rows)
}

/// Interval and extrapolation of the Frechet distance over all classes.
fn uncertainty(measure: &Measure, real: &Images, synthetic: &Images) -> Result<Vec<Measurement>> {
    let metric = measure.extractor.name.frechet();
    let n = synthetic.samples.len();
    let row = |statistic, value| row(measure, Class(None), metric.with(statistic), value, n as i64);
    let mut rows = Vec::new();
    let (of_real, of_synthetic) = (patients(&real.samples.rows), patients(&synthetic.samples.rows));
    let enough = [&of_real, &of_synthetic].iter().all(|of| of.iter().max() >= Some(&(LEAST_PATIENTS - 1)));
    if measure.replicates > 1 && enough {
        let how = Halves {
            replicates: measure.replicates,
            seed: measure.seed,
            real_patients: Some(&of_real),
            synthetic_patients: Some(&of_synthetic),
        };
        let found = interval(&real.features, &synthetic.features, &how)?;
        rows.push(row(Statistic::Ci95Low, found.low));
        rows.push(row(Statistic::Ci95High, found.high));
    }
    if n >= LEAST_TO_EXTRAPOLATE {
        let how = Extrapolation { seed: measure.seed, ..Extrapolation::default() };
        rows.push(row(
            Statistic::Extrapolated,
            extrapolated(&real.features, &synthetic.features, &how)?.value,
        ));
    }
    Ok(rows)
}

/// Pairs that are told of each space.
const PAIRS: usize = 8;

/// Whether synthetic images are nearer to the training images than held-out real ones are, by the extractor's
/// features and (`structure` is `pixels`) by the grey values: `memorisation_*`, over all classes, and the pairs
/// that are nearest. `split` is that of the held-out images.
///
/// # Errors
/// Features that are not finite; images of different sizes.
pub fn memorised(
    measure: &Measure,
    training: &Images,
    synthetic: &Images,
    held_out: &Images,
) -> Result<(Vec<Measurement>, Vec<NearestPair>)> {
    let split = split_of(&held_out.samples);
    let n = synthetic.samples.len();
    let of_features = memorisation(&training.features, &synthetic.features, &held_out.features)?;
    let of_pixels =
        memorisation(&pixels(&training.samples)?, &pixels(&synthetic.samples)?, &pixels(&held_out.samples)?)?;
    let (mut rows, mut pairs) = (Vec::new(), Vec::new());
    for (by, found) in [(measure.extractor.words(), of_features), ("pixels".into(), of_pixels)] {
        let m = &found.memorisation;
        let values = [
            (Metric::MemorisationCloser, m.effect),
            (Metric::MemorisationP, m.p),
            (Metric::MemorisationShareNear, m.share_near),
            (Metric::MemorisationCopies, m.copies as f64),
            (Metric::MemorisationMedian, m.median_synthetic),
            (Metric::MemorisationMedianHeldOut, m.median_held_out),
            (Metric::MemorisationHeldOutCount, m.n_held_out as f64),
        ];
        rows.extend(values.map(|(metric, value)| Measurement {
            split: split.clone(),
            structure: by.clone(),
            ..row(measure, Class(None), metric, value, n as i64)
        }));
        let distances = &found.synthetic.distances;
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&i, &j| distances[i].total_cmp(&distances[j]));
        pairs.extend(order.into_iter().take(PAIRS).map(|i| NearestPair {
            by: by.clone(),
            synthetic: synthetic.samples.rows[i].name(),
            training: training.samples.rows[found.synthetic.indices[i]].name(),
            distance: distances[i],
        }));
    }
    Ok((rows, pairs))
}

/// (n, height * width), 8-bit.
fn pixels(samples: &Samples) -> Result<Tensor> {
    let n = samples.len() as i64;
    Ok(Tensor::f_from_slice(&samples.images)?.f_view([n, -1])?)
}

fn split_of(samples: &Samples) -> String {
    samples.rows.first().and_then(|row| row.split).map(|split| split.to_string()).unwrap_or_default()
}

fn by_class(samples: &Samples) -> BTreeMap<Class, Vec<i64>> {
    let mut found: BTreeMap<Class, Vec<i64>> = BTreeMap::new();
    for (i, row) in (0..).zip(&samples.rows) {
        found.entry(Class(Some((row.view, row.phase)))).or_default().push(i);
    }
    found
}

/// A number for each patient.
fn patients(rows: &[Row]) -> Vec<usize> {
    let mut known = BTreeMap::new();
    rows.iter()
        .map(|row| {
            let next = known.len();
            *known.entry(row.patient.as_str()).or_insert(next)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rand::Rng;
    use tch::Kind;

    use super::*;
    use crate::vocabulary::Extractor;
    use crate::{random, vocabulary::Convention};

    fn measure() -> Measure {
        Measure { kid_subsets: 5, replicates: 4, ..Measure::default() }
    }

    /// Features around `shift`.
    fn images(patients: usize, shift: f64, seed: u64) -> Images {
        let samples = reference::tests::samples(patients, 8);
        let mut rng = random::rng(seed, "features", &[]);
        let values: Vec<f64> = (0..samples.len() * 6).map(|_| rng.random::<f64>() + shift).collect();
        let features = Tensor::from_slice(&values).view([-1, 6]).to_kind(Kind::Float);
        Images { samples, features }
    }

    fn find<'a>(rows: &'a [Measurement], class: (&str, &str), metric: &str) -> Vec<&'a Measurement> {
        rows.iter().filter(|r| (&*r.view, &*r.phase) == class && r.metric == metric).collect()
    }

    #[test]
    fn every_class_and_all_of_them_have_their_rows() {
        let (real, synthetic) = (images(30, 0.0, 1), images(25, 0.3, 2));
        let rows = distances(&measure(), &real, &synthetic).unwrap();
        for (class, n, n_real) in
            [(("", ""), 100, 120.0), (("2CH", "ED"), 25, 30.0), (("4CH", "ES"), 25, 30.0)]
        {
            for metric in ["frechet", "kid", "precision", "recall", "density", "coverage", "n_real"] {
                let found = find(&rows, class, metric);
                assert_eq!(found.len(), 1, "{class:?} {metric}");
                assert_eq!((found[0].n, &*found[0].structure), (Some(n), "domain"));
                assert_eq!((&*found[0].task, &*found[0].split), ("generation", "train"));
            }
            assert_eq!(find(&rows, class, "n_real")[0].value, n_real);
        }
        let [low, value, high] = ["frechet_ci95_low", "frechet", "frechet_ci95_high"]
            .map(|metric| find(&rows, ("", ""), metric)[0].value);
        assert!(low < value && value < high);
        assert_eq!(find(&rows, ("", ""), "frechet_extrapolated").len(), 1);
        assert_eq!(find(&rows, ("", ""), "kid_subset_size")[0].value, 100.0);
        // In another space than Inception's it is not FID.
        assert!(rows.iter().all(|r| !r.metric.contains("fid")));
    }

    #[test]
    fn only_what_is_asked_for_is_measured_and_inceptions_distance_is_called_fid() {
        let (real, synthetic) = (images(4, 0.0, 1), images(3, 0.3, 2));
        let mut measure = Measure { generators: vec![GeneratorMeasure::Fid], ..measure() };
        measure.extractor.name = Extractor::InceptionFid;
        measure.extractor.convention = Convention::CleanFid;
        let rows = distances(&measure, &real, &synthetic).unwrap();
        assert!(rows.iter().all(|r| r.structure == "inception-fid, clean-fid"));
        assert!(rows.iter().all(|r| r.metric == "n_real" || r.metric.starts_with("fid")));
        // Too few images of a class for a row of its own, and too few in all to extrapolate from.
        assert!(rows.iter().all(|r| r.view.is_empty() && r.metric != "fid_extrapolated"));
    }

    #[test]
    fn copies_are_found_by_features_and_by_pixels_and_named() {
        let (training, mut held_out) = (images(5, 0.0, 1), images(4, 0.0, 7));
        held_out.samples.images.iter_mut().for_each(|v| *v = v.wrapping_mul(31));
        let copies =
            Images { samples: training.samples.chosen(&[3, 1]), features: training.features.narrow(0, 0, 2) };
        let (rows, pairs) = memorised(&measure(), &training, &copies, &held_out).unwrap();
        for by in ["domain", "pixels"] {
            let of = |what: &str| {
                rows.iter().find(|r| r.structure == by && r.metric == format!("memorisation_{what}")).unwrap()
            };
            assert_eq!((of("closer").value, of("copies").value), (1.0, 2.0), "{by}");
            assert_eq!((of("n_held_out").value, of("p").n), (16.0, Some(2)));
        }
        assert_eq!(pairs.len(), 4);
        let pixels = pairs.iter().find(|pair| pair.by == "pixels").unwrap();
        assert_eq!(pixels.synthetic, pixels.training);
    }
}

use std::collections::HashSet;

use super::*;
use crate::{
    experiment::{Freeze, GeneratorPreset, HeldOut, Preset, SplitScheme, TrainingRecipe, parse, resolve},
    plan::Mixture,
};

fn train(settings: Segmentation) -> Work {
    Work::TrainSegmentation { settings, mixture: Mixture::real(1.0, 0) }
}

fn generator() -> Box<Generator> {
    Box::new(Generator::preset(GeneratorPreset::Cpu, Mode::TextSegmentation))
}

fn segmentation() -> Segmentation {
    Segmentation::preset(Preset::Corrected)
}

fn classification() -> Classification {
    Classification::preset(Preset::Corrected)
}

fn spec() -> Box<ResolvedSpec> {
    let text = "[data]\nsource = \"phantom\"\n[tasks.segmentation]\n";
    Box::new(resolve(parse(text, "spec".as_ref(), &[]).unwrap()).unwrap())
}

/// One stage of each kind of work and its key; `covered` does not compile while a kind is missing here.
macro_rules! pinned {
    ($( $kind:pat = $work:expr => $key:literal, )*) => {
        fn pinned() -> Vec<(Work, &'static str)> {
            vec![$( ($work, $key) ),*]
        }

        fn covered(work: &Work) {
            match work {
                $( $kind => {} )*
            }
        }
    };
}

pinned! {
    Work::Phantom(_) = Work::Phantom(Phantom { patients: 10, size: 128, seed: 0 })
        => "37c3477a053b5059c92950b052e488a7",
    Work::Import { .. } = Work::Import { format: Source::Camus } => "3beaf3c5c98fe3d6d93d64f0424df978",
    Work::Prepare { .. } = Work::Prepare {
        image_size: 128,
        split: SplitSettings {
            scheme: SplitScheme::Official,
            test_from: HeldOut::Test,
            val_patients: None,
            val_fraction: None,
            test_fraction: None,
            folds: None,
            fold: None,
            seed: 0,
        },
    } => "f869adcb29fa3163ff421f94bb86059e",
    Work::TrainGenerator { .. } = Work::TrainGenerator {
        settings: generator(),
        patients: Some(Fraction { fraction: 0.5, seed: 1 }),
        judges: None,
    } => "287768afc903687e01c6d74f8d320aef",
    Work::Generate { .. } = Work::Generate { settings: generator(), patients: None }
        => "6f3b3ea7a507c5d9b9258ace5866f585",
    Work::ImportSynthetic {} = Work::ImportSynthetic {} => "c5e7721c8217672e249c89d5ee640cad",
    Work::PrepareSynthetic { .. } = Work::PrepareSynthetic { image_size: 128 }
        => "bfd03c86d03120dedbcdb7f33b6c042e",
    Work::TrainSegmentation { .. } = train(segmentation()) => "7c77b984740322a2698bef69a28a21a4",
    Work::TrainClassification { .. } = Work::TrainClassification {
        settings: classification(),
        model: Backbone::Resnet18,
        mixture: Mixture::real(1.0, 0),
    } => "4c0650d64c54906d28f658260230b915",
    Work::JudgeSegmentation { .. } = Work::JudgeSegmentation { settings: segmentation() }
        => "dd9a82a3efb95450404d0c681241d2ad",
    Work::JudgeClassification { .. } = Work::JudgeClassification {
        settings: classification(),
        model: Backbone::Resnet18,
    } => "1356e472c6dc5bd4d36b24fe378bcd86",
    Work::PseudoMasks { .. } = Work::PseudoMasks { settings: segmentation() }
        => "2e5cc51ec647be2a31ec0260996d0e16",
    Work::SelectCandidates { .. } = Work::SelectCandidates { settings: segmentation(), candidates: 4 }
        => "3c6eae5544d67ee2accc412ab1d25cd0",
    Work::MeasureTexture {} = Work::MeasureTexture {} => "f6e2f4ed061732ff4ba0a9762cf2ac72",
    Work::MeasureGenerator { .. } = Work::MeasureGenerator { measure: Measure::default() }
        => "759ccbaa08e95a8eebc5c09fb5b7bbe4",
    Work::MeasureReference { .. } = Work::MeasureReference {
        measure: Measure::default(),
        per_class: 100,
    } => "e35d83b8c8bbe7b4bdcdd368c1c1ac94",
    Work::MeasureSegmentation { .. } = Work::MeasureSegmentation {
        settings: segmentation(),
        on: ReportOn::Test,
    } => "e8360eb3179f0ce766af617a1be55d8f",
    Work::MeasureClassification { .. } = Work::MeasureClassification {
        settings: classification(),
        model: Backbone::Resnet18,
        on: ReportOn::Test,
    } => "5350396208ca2d40e02480b10b505e90",
    Work::Report { .. } = Work::Report { spec: spec() } => "04b4ed5992424d82a250dd31a6bd06dd",
}

#[test]
fn the_keys_of_stages_change_only_on_purpose() {
    let mut wrong = Vec::new();
    for (work, expected) in pinned() {
        covered(&work);
        let found = key(&work, &[], &[]);
        if found != expected {
            wrong.push(format!("{} \"{expected}\" is now \"{found}\"", params(&work)["work"]));
        }
    }
    assert!(
        wrong.is_empty(),
        "keys have changed, so every store computes these stages again:\n{}\nIf the output of the stage has \
         changed, raise its number in `Work::version`. If only the form of the key has changed, is that worth \
         training everything again? Then update the literals here, and say so in CHANGELOG.md.",
        wrong.join("\n")
    );
}

#[test]
fn every_kind_of_work_has_a_key_of_its_own() {
    let keys: HashSet<&str> = pinned().into_iter().map(|(_, key)| key).collect();
    assert_eq!(keys.len(), pinned().len());
}

#[test]
fn freezing_is_in_the_key() {
    let of = |trainable_parameters, freeze| {
        let settings = Classification { trainable_parameters, freeze, ..classification() };
        let model = Backbone::Resnet18;
        key(&Work::TrainClassification { settings, model, mixture: Mixture::real(1.0, 0) }, &[], &[])
    };
    let keys =
        [of(0, Freeze::Reference), of(9, Freeze::Reference), of(9, Freeze::Exact), of(8, Freeze::Exact)];
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 4);
}

#[test]
fn only_what_decides_the_output_is_in_the_key() {
    let base = segmentation();
    let input = |key: &str| vec![Input { role: "data".into(), key: key.into() }];
    let reference = key(&train(base.clone()), &input("a"), &[]);
    let with = |recipe: TrainingRecipe| Segmentation { recipe, ..base.clone() };
    let same =
        with(TrainingRecipe { report_on: ReportOn::Val, preset: Preset::PaperCode, ..base.recipe.clone() });
    assert_eq!(key(&train(same), &input("a"), &[]), reference);
    let other = with(TrainingRecipe { epochs: 7, ..base.recipe.clone() });
    assert_ne!(key(&train(other), &input("a"), &[]), reference);
    assert_ne!(key(&train(base.clone()), &input("b"), &[]), reference);
    let outside = Outside { role: "weights".into(), path: "x".into(), digest: "d".into() };
    assert_ne!(key(&train(base.clone()), &input("a"), std::slice::from_ref(&outside)), reference);
    let moved = Outside { path: "y".into(), ..outside.clone() };
    assert_eq!(key(&train(base.clone()), &[], &[outside]), key(&train(base), &[], &[moved]));
}

#[test]
fn a_generator_is_trained_and_sampled_by_its_own_sections() {
    let keys = |change: &dyn Fn(&mut Generator)| {
        let mut settings = generator();
        change(&mut settings);
        [
            key(&Work::TrainGenerator { settings: settings.clone(), patients: None, judges: None }, &[], &[]),
            key(&Work::Generate { settings, patients: None }, &[], &[]),
        ]
    };
    let base = keys(&|_| {});
    let changed = |change: &dyn Fn(&mut Generator)| {
        let now = keys(change);
        [now[0] != base[0], now[1] != base[1]]
    };
    assert_eq!(changed(&|g| g.preset = GeneratorPreset::Diffecho), [false, false]);
    assert_eq!(changed(&|g| g.source.base = "other".into()), [false, false]);
    assert_eq!(changed(&|g| g.networks.patch = 2), [true, false]);
    assert_eq!(changed(&|g| g.training.steps = 7), [true, false]);
    assert_eq!(changed(&|g| g.sampling.guidance = 3.0), [false, true]);
    assert_eq!(changed(&|g| g.prompts.random_tokens = true), [true, true]);
    assert_eq!(changed(&|g| g.seed = 7), [true, true]);
    assert_eq!(changed(&|g| g.sampling.per_mask = 9), [false, true]);
    assert_eq!(changed(&|g| g.sampling.pseudo_masks = true), [false, false]);
    assert_eq!(changed(&|g| g.augment.rotate = 1.0), [true, false]);
    let varied = |rotate: f64| {
        keys(&|g| {
            g.sampling.vary_masks = true;
            g.augment.rotate = rotate;
        })
    };
    assert_ne!(varied(1.0)[1], varied(2.0)[1]);
    let unconditional = |negative_prompt: &str| {
        keys(&|g| {
            g.mode = Mode::Unconditional;
            g.sampling.negative_prompt = negative_prompt.into();
        })
    };
    assert_eq!(unconditional("")[1], unconditional("blurred")[1]);
}

#[test]
fn what_another_extractor_or_measure_uses_is_not_in_the_key_of_a_measure() {
    let of = |name, generators: &[GeneratorMeasure], change: &dyn Fn(&mut Measure)| {
        let mut measure = Measure { generators: generators.to_vec(), ..Measure::default() };
        measure.extractor.name = name;
        change(&mut measure);
        key(&Work::MeasureGenerator { measure }, &[], &[])
    };
    let counts = |name, generators: &[GeneratorMeasure], change: &dyn Fn(&mut Measure)| {
        of(name, generators, change) != of(name, generators, &|_| {})
    };
    let fid = [GeneratorMeasure::Fid];
    let other_convention = |m: &mut Measure| m.extractor.convention = Convention::CleanFid;
    assert!(counts(Extractor::InceptionFid, &fid, &other_convention));
    assert!(!counts(Extractor::Domain, &fid, &other_convention));
    let other_size = |m: &mut Measure| m.extractor.image_size += 8;
    assert!(counts(Extractor::Domain, &fid, &other_size));
    assert!(!counts(Extractor::InceptionFid, &fid, &other_size));
    let other_subsets = |m: &mut Measure| m.kid_subsets += 1;
    assert!(counts(Extractor::Domain, &GeneratorMeasure::DEFAULT, &other_subsets));
    assert!(!counts(Extractor::Domain, &fid, &other_subsets));
}

//! `[measure]`, filled in and checked.

use std::collections::{BTreeMap, HashSet};

use super::Check;
use crate::{
    error::Result,
    experiment::{Generator, Measure, MeasureSpec},
    vocabulary::{Extractor, GeneratorMeasure},
};

pub(super) fn resolve(
    typed: Option<MeasureSpec>,
    generators: &BTreeMap<String, Generator>,
    check: &Check,
) -> Result<Option<Measure>> {
    let Some(typed) = typed else { return Ok(None) };
    let fault =
        |field: &str, problem: &str, help: &str| Err(check.fault(&format!("measure.{field}"), problem, help));
    let named = (typed.extractor.as_ref()).is_some_and(|extractor| extractor.name.is_some());
    let measure = typed.over(Measure::default());
    if generators.is_empty() {
        return fault(
            "generators",
            "the spec has no generator to measure",
            "add [generators.NAME], or remove [measure]",
        );
    }
    if measure.generators.is_empty() {
        return fault(
            "generators",
            "the list is empty",
            &format!("write {:?}", GeneratorMeasure::DEFAULT.map(GeneratorMeasure::as_str)),
        );
    }
    if measure.generators.iter().collect::<HashSet<_>>().len() != measure.generators.len() {
        return fault("generators", "a measure is listed twice", "list each once");
    }
    let range = |field: &str, value: usize, low: f64, high: f64| {
        check.range(&format!("measure.{field}"), value as f64, low, high)
    };
    range("neighbours", measure.neighbours, 1.0, 1000.0)?;
    range("kid_subsets", measure.kid_subsets, 2.0, 1e5)?;
    range("kid_subset_size", measure.kid_subset_size, 2.0, 1e6)?;
    range("replicates", measure.replicates, 0.0, 1e5)?;
    // numpy's generator, which chooses the subsets, takes no greater seed.
    check.range("measure.seed", measure.seed as f64, 0.0, f64::from(u32::MAX))?;
    let extractor = &measure.extractor;
    let file = &extractor.weights;
    match extractor.name {
        Extractor::Domain if !file.as_os_str().is_empty() => {
            let problem = if named {
                "the domain network is trained on the real images of this experiment"
            } else {
                "weights of which network?"
            };
            let help = "set name = \"inception-fid\" or \"resnet50\", or remove `weights`";
            return fault("extractor.weights", problem, help);
        }
        Extractor::Domain => {
            // As of a classifier's images.
            range("extractor.image_size", extractor.image_size, 40.0, 1024.0)?;
            range("extractor.epochs", extractor.epochs, 1.0, 1e6)?;
            check.range("measure.extractor.learning_rate", extractor.learning_rate, 1e-9, 10.0)?;
        }
        _ if file.as_os_str().is_empty() => {
            let help = "`synecho measure fid --help` says where they come from; name = \"domain\" needs none";
            return fault("extractor.weights", "this extractor needs its weights", help);
        }
        _ if !file.is_file() => {
            let problem = format!("{} does not exist", file.display());
            let help = "paths are relative to the working folder";
            check.lacks("measure.extractor.weights", &problem, help);
        }
        _ => {}
    }
    Ok(Some(measure))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{experiment, vocabulary::GeneratorMeasure};

    const SPEC: &str = "[data]\nsource = \"phantom\"\n[generators.a]\nmode = \"unconditional\"\n[measure]\n";

    fn resolved(text: &str, set: &str) -> crate::Result<experiment::ResolvedSpec> {
        let sets = if set.is_empty() { vec![] } else { vec![set.to_owned()] };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("spec.toml");
        std::fs::write(&file, text).unwrap();
        experiment::load(&file, &sets, false)
    }

    #[test]
    fn an_empty_table_asks_for_all_measures_and_resolves_to_itself() {
        assert_eq!(resolved(&SPEC.replace("[measure]\n", ""), "").unwrap().measure, None);
        let spec = resolved(SPEC, "").unwrap();
        assert_eq!(spec.measure.as_ref().unwrap().generators, GeneratorMeasure::DEFAULT);
        let again =
            experiment::resolve(experiment::parse(&spec.to_toml(), Path::new("s"), &[]).unwrap()).unwrap();
        assert_eq!(again.measure, spec.measure);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_place() {
        for (set, parts) in [
            ("measure.generators=[]", ["the list is empty", "write [\"fid\""]),
            ("measure.generators=[\"kid\", \"kid\"]", ["listed twice", "list each once"]),
            ("measure.generators=[\"fit\"]", ["unknown variant `fit`", "did you mean `fid`?"]),
            ("measure.kid_subset_size=1", ["1 is out of range", "from 2 to"]),
            ("measure.seed=4294967296", ["out of range", "from 0 to"]),
            ("measure.extractor.name=inception-fid", ["needs its weights", "synecho measure fid --help"]),
            ("measure.extractor.weights=x.safetensors", ["weights of which network?", "set name"]),
            ("measure.extractor.image_size=16", ["16 is out of range", "from 40"]),
            ("measure.extractor.convention=clean", ["unknown variant `clean`", "`clean-fid`"]),
        ] {
            let error = resolved(SPEC, set).unwrap_err();
            let message = error.to_string();
            assert_eq!(error.exit_code(), 2);
            assert!(message.contains("--set measure.") || message.contains("spec.toml:5: "), "{message}");
            for part in parts {
                assert!(message.contains(part), "{message}\n lacks {part}");
            }
        }
        let text = SPEC.replace("[measure]", "[measure.extractor]\nname = \"resnet50\"\nweights = \"none\"");
        let message = resolved(&text, "").unwrap_err().to_string();
        assert!(message.contains("spec.toml:7: ") && message.contains("none does not exist"), "{message}");
        let text = SPEC.replace("[generators.a]\nmode = \"unconditional\"\n", "[tasks.segmentation]\n");
        let message = resolved(&text, "").unwrap_err().to_string();
        assert!(message.contains("the spec has no generator to measure"), "{message}");
    }
}

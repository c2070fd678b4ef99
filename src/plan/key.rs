//! The hash that names a stage.

use serde_json::{Value, json};

use super::{Input, Outside, Work};
use crate::experiment::Generator;

/// 128 bits of BLAKE3 over the canonical JSON of what decides the output.
pub(super) fn key(work: &Work, inputs: &[Input], outside: &[Outside]) -> String {
    let mut inputs: Vec<_> = inputs.iter().map(|i| (&i.role, &i.key)).collect();
    inputs.sort();
    let mut outside: Vec<_> = outside.iter().map(|o| (&o.role, &o.digest)).collect();
    outside.sort();
    let identity = json!({
        "kind": work.kind(),
        "version": work.version(),
        "params": params(work),
        "inputs": inputs,
        "outside": outside,
    });
    blake3::hash(canonical(&identity).as_bytes()).to_hex()[..32].to_owned()
}

/// The parameters that decide the output. What a measure alone needs, or what only names or places
/// something, is left out, so that it does not train anything again.
pub fn params(work: &Work) -> Value {
    let mut params = serde_json::to_value(work).unwrap_or(Value::Null);
    if let Some(Value::Object(extractor)) = params.pointer_mut("/measure/extractor") {
        // Weights are known by their digest, a network that is trained is an input.
        extractor.retain(|name, _| ["name", "convention", "image_size"].contains(&name.as_str()));
    }
    let Some(Value::Object(settings)) = params.get_mut("settings") else { return params };
    match work {
        // Weights are known by their digest.
        Work::TrainSegmentation { .. } | Work::TrainClassification { .. } => {
            settings.retain(|name, _| !["preset", "report_on", "models", "weights"].contains(&name.as_str()));
            // As before there was freezing, so that what was trained without stays known.
            if settings.get("trainable_parameters") == Some(&json!(0)) {
                settings.retain(|name, _| !["trainable_parameters", "freeze"].contains(&name.as_str()));
            }
        }
        // The base is an input. How images are sampled decides nothing of the training.
        Work::TrainGenerator { .. } => settings.retain(|name, _| {
            let name = name.as_str();
            !Generator::PLACES.contains(&name) && !Generator::SAMPLING.contains(&name)
        }),
        Work::Generate { .. } => settings.retain(|name, _| !Generator::PLACES.contains(&name.as_str())),
        // The rest was said in training.
        _ => settings.retain(|name, _| {
            ["model", "image_size", "channels", "label", "imagenet_normalise"].contains(&name.as_str())
        }),
    }
    params
}

/// JSON with sorted keys and no white space.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut names: Vec<_> = map.keys().collect();
            names.sort();
            let fields: Vec<_> = names
                .into_iter()
                .map(|name| format!("{}:{}", Value::String(name.clone()), canonical(&map[name])))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(canonical).collect();
            format!("[{}]", items.join(","))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{Classification, Freeze, Preset, ReportOn, Segmentation, TrainingRecipe};
    use crate::plan::Mixture;
    use crate::vocabulary::Backbone;

    fn train(settings: Segmentation) -> Work {
        Work::TrainSegmentation { settings, mixture: Mixture::real(1.0, 0) }
    }

    #[test]
    fn the_key_of_a_stage_does_not_drift() {
        // A changed literal means that every user's store is trained again: raise a version instead of
        // letting this happen by accident.
        let work = Work::Phantom(crate::experiment::Phantom { patients: 10, size: 128, seed: 0 });
        assert_eq!(key(&work, &[], &[]), "37c3477a053b5059c92950b052e488a7");
    }

    #[test]
    fn freezing_is_in_the_key_where_something_is_frozen() {
        let of = |trainable_parameters, freeze| {
            let base = Classification::preset(Preset::Corrected);
            let settings = Classification { trainable_parameters, freeze, ..base };
            let model = Backbone::Resnet18;
            let work = Work::TrainClassification { settings, model, mixture: Mixture::real(1.0, 0) };
            (key(&work, &[], &[]), params(&work))
        };
        let (all, params) = of(0, Freeze::Reference);
        assert!(params.pointer("/settings/freeze").is_none(), "{params}");
        assert_eq!(of(0, Freeze::Exact).0, all);
        let keys = [all, of(9, Freeze::Reference).0, of(9, Freeze::Exact).0, of(8, Freeze::Exact).0];
        assert_eq!(keys.iter().collect::<std::collections::HashSet<_>>().len(), 4);
    }

    #[test]
    fn only_what_decides_the_output_is_in_the_key() {
        let base = Segmentation::preset(Preset::Corrected);
        let input = |key: &str| vec![Input { role: "data".into(), key: key.into() }];
        let reference = key(&train(base.clone()), &input("a"), &[]);
        let with = |recipe: TrainingRecipe| Segmentation { recipe, ..base.clone() };
        let same = with(TrainingRecipe {
            report_on: ReportOn::Val,
            preset: Preset::PaperCode,
            ..base.recipe.clone()
        });
        assert_eq!(key(&train(same), &input("a"), &[]), reference);
        let other = with(TrainingRecipe { epochs: 7, ..base.recipe.clone() });
        assert_ne!(key(&train(other), &input("a"), &[]), reference);
        assert_ne!(key(&train(base.clone()), &input("b"), &[]), reference);
        let outside = Outside { role: "weights".into(), path: "x".into(), digest: "d".into() };
        assert_ne!(key(&train(base.clone()), &input("a"), std::slice::from_ref(&outside)), reference);
        let moved = Outside { path: "y".into(), ..outside.clone() };
        assert_eq!(key(&train(base.clone()), &[], &[outside]), key(&train(base), &[], &[moved]));
    }
}

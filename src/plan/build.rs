//! Lays out the stages of an experiment.

use std::collections::HashSet;

use super::{Cell, Input, Outside, OutsideDigests, Plan, Stage, Work, key::key};
use crate::spec::{ResolvedSpec, Source};

struct Builder {
    plan: Plan,
    known: HashSet<String>,
}

impl Builder {
    /// Adds the stage unless another part of the experiment already needs the same one.
    fn add(&mut self, label: String, work: Work, inputs: Vec<Input>, outside: Vec<Outside>) -> String {
        let key = key(&work, &inputs, &outside);
        if self.known.insert(key.clone()) {
            self.plan.stages.push(Stage { key: key.clone(), label, work, inputs, outside });
        }
        key
    }
}

fn input(role: impl Into<String>, key: &str) -> Input {
    Input { role: role.into(), key: key.to_owned() }
}

/// The stages of `spec`, given the digests of the outside files it names.
pub fn build(spec: &ResolvedSpec, digests: &OutsideDigests) -> Plan {
    let mut b = Builder { plan: Plan::default(), known: HashSet::new() };
    let root = spec.data.root.as_ref().map(|path| Outside {
        role: "source".into(),
        path: path.clone(),
        digest: digests.data.clone().unwrap_or_default(),
    });
    let imported = match (&spec.data.phantom, &root) {
        (Some(phantom), _) => {
            let drawn = b.add("draw the phantom".into(), Work::Phantom(phantom.clone()), vec![], vec![]);
            let work = Work::Import { format: Source::Camus };
            Some(b.add("import the phantom".into(), work, vec![input("source", &drawn)], vec![]))
        }
        (None, Some(root)) if !digests.data_is_manifest => {
            let work = Work::Import { format: spec.data.source };
            Some(b.add("import the data set".into(), work, vec![], vec![root.clone()]))
        }
        _ => None,
    };
    let prepare = |b: &mut Builder, image_size: usize| {
        let work = Work::Prepare { image_size, split: spec.data.split.clone() };
        let (inputs, outside) = match (&imported, &root) {
            (Some(imported), _) => (vec![input("source", imported)], vec![]),
            (None, Some(root)) => (vec![], vec![root.clone()]),
            (None, None) => (vec![], vec![]),
        };
        b.add(format!("prepare at {image_size} px"), work, inputs, outside)
    };
    let seg_data = spec.tasks.segmentation.as_ref().map(|task| prepare(&mut b, task.image_size));
    let cls_data = spec.tasks.classification.as_ref().map(|task| prepare(&mut b, task.image_size));

    for arm in &spec.arms {
        for &seed in &spec.experiment.seeds {
            if let (Some(task), Some(data)) = (&spec.tasks.segmentation, &seg_data) {
                let label = format!("segmentation {}, {}, seed {seed}", task.model, arm.name);
                let work = Work::TrainSegmentation {
                    settings: task.clone(),
                    real_fraction: arm.real_fraction,
                    seed,
                };
                let train = b.add(format!("train {label}"), work, vec![input("data", data)], vec![]);
                let work = Work::MeasureSegmentation { settings: task.clone(), on: task.report_on };
                let inputs = vec![input("network", &train), input("data", data)];
                let measure = b.add(format!("measure {label}"), work, inputs, vec![]);
                let (arm, model) = (arm.name.clone(), task.model.clone());
                b.plan.cells.push(Cell { task: "segmentation", arm, model, seed, train, measure });
            }
            if let (Some(task), Some(data)) = (&spec.tasks.classification, &cls_data) {
                for model in &task.models {
                    let label = format!("classification {model}, {}, seed {seed}", arm.name);
                    let work = Work::TrainClassification {
                        settings: task.clone(),
                        model: model.clone(),
                        real_fraction: arm.real_fraction,
                        seed,
                    };
                    let weights = digests.classification_weights.as_ref().map(|digest| Outside {
                        role: "weights".into(),
                        path: task.weights.clone(),
                        digest: digest.clone(),
                    });
                    let outside = weights.into_iter().collect();
                    let train = b.add(format!("train {label}"), work, vec![input("data", data)], outside);
                    let work = Work::MeasureClassification {
                        settings: task.clone(),
                        model: model.clone(),
                        on: task.report_on,
                    };
                    let inputs = vec![input("network", &train), input("data", data)];
                    let measure = b.add(format!("measure {label}"), work, inputs, vec![]);
                    let (arm, model) = (arm.name.clone(), model.clone());
                    b.plan.cells.push(Cell { task: "classification", arm, model, seed, train, measure });
                }
            }
        }
    }
    let mut inputs = Vec::new();
    for cell in &b.plan.cells {
        let name = format!("{}/{}/{}/{}", cell.task, cell.arm, cell.model, cell.seed);
        inputs.push(input(format!("train/{name}"), &cell.train));
        inputs.push(input(format!("measure/{name}"), &cell.measure));
    }
    for (task, data) in [("segmentation", &seg_data), ("classification", &cls_data)] {
        if let Some(data) = data {
            inputs.push(input(format!("data/{task}"), data));
        }
    }
    b.add("report".into(), Work::Report { spec: Box::new(spec.clone()) }, inputs, vec![]);
    b.plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::StageKind, spec};

    fn plan(text: &str) -> Plan {
        let typed = spec::parse(text, "t".as_ref(), &[]).unwrap();
        build(&spec::resolve(typed).unwrap(), &OutsideDigests::default())
    }

    #[test]
    fn shared_stages_stand_once_and_inputs_come_first() {
        let text = "[experiment]\nseeds=[0,1]\n[data]\nsource=\"phantom\"\n[[arms]]\n[[arms]]\nname=\"twin\"\n[tasks.segmentation]\n";
        let plan = plan(text);
        // phantom, import, prepare, 2 x (train, measure), report: the twin arm shares its networks.
        assert_eq!(plan.stages.len(), 8);
        assert_eq!(plan.cells.len(), 4);
        let place = plan.by_key();
        for (i, stage) in plan.stages.iter().enumerate() {
            for input in &stage.inputs {
                assert!(place[input.key.as_str()] < i);
            }
        }
    }

    #[test]
    fn a_title_changes_the_report_alone() {
        let text = "[data]\nsource=\"phantom\"\n[tasks.segmentation]\n[tasks.classification]\n";
        let (a, b) = (plan(text), plan(&format!("[experiment]\ntitle=\"T\"\n{text}")));
        for (a, b) in a.stages.iter().zip(&b.stages) {
            assert_eq!(a.key == b.key, a.kind() != StageKind::Report, "{}", a.label);
        }
    }
}

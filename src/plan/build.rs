//! Lays out the stages of an experiment.

use std::collections::HashSet;

use super::{
    Further, GeneratorStages, Input, Mixture, NetworkStages, Outside, OutsideDigests, Plan, QualityJudges,
    Stage, Work, key::key,
};
use crate::{
    cell::{Cell, Fraction, GeneratorCell, NetworkCell},
    experiment::{
        Arm, Classification, Control, Generator, Measure, Mix, ResolvedSpec, Segmentation, TrainingRecipe,
    },
    vocabulary::{Backbone, Extractor, Mode, Source, Task, VIEW_PHASES},
};

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

    /// Adds the stages that train an arm's network, one after the other on (real, synthetic) images; the first
    /// starts from the weights `outside`. The key of the last.
    fn train(
        &mut self,
        label: &str,
        phases: Vec<Phase>,
        (real, synthetic): (&str, Option<&str>),
        mut outside: Vec<Outside>,
        work: impl Fn(&Phase) -> Work,
    ) -> String {
        let mut last: Option<String> = None;
        for phase in phases {
            let synthetic = synthetic.filter(|_| phase.mixture.takes_synthetic());
            let sets = [("data", Some(real)), ("synthetic", synthetic), ("start", last.as_deref())];
            let inputs = sets.into_iter().filter_map(|(role, key)| Some(input(role, key?))).collect();
            let label = format!("{} {label}", phase.verb);
            last = Some(self.add(label, work(&phase), inputs, std::mem::take(&mut outside)));
        }
        last.unwrap_or_default()
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
    let seg_data = spec.tasks.segmentation.as_ref().map(|task| prepare(&mut b, task.recipe.image_size));
    let cls_data = spec.tasks.classification.as_ref().map(|task| prepare(&mut b, task.recipe.image_size));

    let mut generators = Generators { spec, digests, prepare: &prepare, seg_data: seg_data.as_deref() };
    let cells = generator_cells(spec);
    // Those of all patients come first: they take longest, and most arms wait for them.
    for cell in cells.iter().filter(|cell| cell.patients.is_none()) {
        generators.made(&mut b, &cell.name, None);
    }

    for arm in &spec.arms {
        for &seed in &spec.experiment.seeds {
            let made = arm.synthetic.as_ref().map(|name| generators.made(&mut b, name, patients(arm, seed)));
            // An arm whose images have no masks is one of classification alone.
            let masked = arm.synthetic.as_ref().is_none_or(|name| spec.generators[name].has_masks());
            if let (Some(task), Some(data), true) = (&spec.tasks.segmentation, &seg_data, masked) {
                let synthetic =
                    made.as_ref().map(|made| at_size(&mut b, &made.masked, task.recipe.image_size));
                let label = format!("segmentation {}, {}, seed {seed}", task.model, arm.name);
                let phases = phases(arm, seed, &task.recipe);
                let train = b.train(&label, phases, (data, synthetic.as_deref()), vec![], |phase| {
                    let settings = Segmentation { recipe: phase.recipe.clone(), ..task.clone() };
                    Work::TrainSegmentation { settings, mixture: phase.mixture }
                });
                let work = Work::MeasureSegmentation { settings: task.clone(), on: task.recipe.report_on };
                let inputs = vec![input("network", &train), input("data", data)];
                let measure = b.add(format!("measure {label}"), work, inputs, vec![]);
                let (arm, model) = (arm.name.clone(), task.model.to_string());
                let cell = NetworkCell { task: Task::Segmentation, arm, model, seed };
                b.plan.networks.push(NetworkStages { cell, train, measure });
            }
            if let (Some(task), Some(data)) = (&spec.tasks.classification, &cls_data) {
                let synthetic =
                    made.as_ref().map(|made| at_size(&mut b, &made.images, task.recipe.image_size));
                for model in &task.models {
                    let label = format!("classification {model}, {}, seed {seed}", arm.name);
                    let phases = phases(arm, seed, &task.recipe);
                    let weights = digests.classification_weights.get(model).cloned();
                    let (sets, weights) =
                        ((data.as_str(), synthetic.as_deref()), weights.into_iter().collect());
                    let train = b.train(&label, phases, sets, weights, |phase| {
                        // A limit on images that an arm does not have makes no other arm of it.
                        let synthetic_per_class = match arm.ratio {
                            Some(_) => task.synthetic_per_class,
                            None => 0,
                        };
                        let settings = Classification {
                            recipe: phase.recipe.clone(),
                            synthetic_per_class,
                            ..task.clone()
                        };
                        Work::TrainClassification { settings, model: *model, mixture: phase.mixture }
                    });
                    let work = Work::MeasureClassification {
                        settings: task.clone(),
                        model: *model,
                        on: task.recipe.report_on,
                    };
                    let inputs = vec![input("network", &train), input("data", data)];
                    let measure = b.add(format!("measure {label}"), work, inputs, vec![]);
                    let (arm, model) = (arm.name.clone(), model.to_string());
                    let cell = NetworkCell { task: Task::Classification, arm, model, seed };
                    b.plan.networks.push(NetworkStages { cell, train, measure });
                }
            }
        }
    }
    for cell in cells {
        let made = generators.made(&mut b, &cell.name, cell.patients);
        let real = prepare(&mut b, spec.generators[&cell.name].image_size);
        let mut stages = judged(&mut b, spec, digests, cell, made, real);
        // These compare with the images of all training patients.
        if stages.cell.patients.is_none() {
            stages.distances = distances(&mut b, spec, digests, &prepare, &stages);
        }
        b.plan.generators.push(stages);
    }
    for (task, data) in [(Task::Segmentation, seg_data), (Task::Classification, cls_data)] {
        b.plan.task_data.extend(data.map(|data| (task, data)));
    }
    let inputs = report_inputs(&b.plan);
    let published = digests.published.as_ref().map(|digest| Outside {
        role: "published".into(),
        path: spec.report.published.clone(),
        digest: digest.clone(),
    });
    let work = Work::Report { spec: Box::new(spec.clone()) };
    b.add("report".into(), work, inputs, published.into_iter().collect());
    b.plan
}

/// What the report is drawn from. A role names the artifact in the stage's record; nothing reads it back.
fn report_inputs(plan: &Plan) -> Vec<Input> {
    let mut inputs = Vec::new();
    for stages in &plan.generators {
        let label = stages.cell.label();
        let mut add = |what: &str, key: &String| inputs.push(input(format!("generator/{what}/{label}"), key));
        stages.train.iter().for_each(|key| add("train", key));
        add("images", &stages.images);
        add("texture", &stages.texture);
        stages.distances.iter().for_each(|key| add("distances", key));
        stages.judged.iter().for_each(|(task, key)| add(&format!("judge-{task}"), key));
    }
    inputs.extend(plan.references.iter().map(|(size, key)| input(format!("reference/{size}"), key)));
    // Once for each generator, whoever its patients are.
    for of_name in plan.generators.chunk_by(|a, b| a.cell.name == b.cell.name) {
        inputs.push(input(format!("data/generator {}", of_name[0].cell.name), &of_name[0].data));
    }
    for stages in &plan.networks {
        let cell = Cell::Network(stages.cell.clone());
        inputs.push(input(format!("train/{cell}"), &stages.train));
        inputs.push(input(format!("measure/{cell}"), &stages.measure));
    }
    inputs.extend(plan.task_data.iter().map(|(task, key)| input(format!("data/{task}"), key)));
    inputs
}

/// The generators of an experiment. Each is trained on all training patients, unless only arms with fewer patients use
/// it; and for these arms, at each seed, on the arm's patients.
pub fn generator_cells(spec: &ResolvedSpec) -> Vec<GeneratorCell> {
    let mut cells = Vec::new();
    for name in spec.generators.keys() {
        let cell = |patients| GeneratorCell { name: name.clone(), patients };
        let users: Vec<&Arm> = spec.arms.iter().filter(|arm| arm.synthetic.as_ref() == Some(name)).collect();
        if users.is_empty() || users.iter().any(|arm| arm.real_fraction == 1.0) {
            cells.push(cell(None));
        }
        for arm in users {
            for &seed in &spec.experiment.seeds {
                let cell = cell(patients(arm, seed));
                if !cells.contains(&cell) {
                    cells.push(cell);
                }
            }
        }
    }
    cells
}

/// Whom a generator of this arm is trained on.
fn patients(arm: &Arm, seed: u64) -> Option<Fraction> {
    (arm.real_fraction < 1.0).then_some(Fraction { fraction: arm.real_fraction, seed })
}

/// One training stage of an arm; of an arm that trains on synthetic images first there are two.
struct Phase {
    verb: &'static str,
    mixture: Mixture,
    recipe: TrainingRecipe,
}

/// An arm's phases of training, which share the recipe's steps or epochs.
fn phases(arm: &Arm, seed: u64, recipe: &TrainingRecipe) -> Vec<Phase> {
    let real = Mixture::real(arm.real_fraction, seed);
    let further = match (arm.control, arm.mix) {
        (Some(Control::DuplicateReal), _) => Further::DuplicateReal,
        (None, Mix::Together) => Further::Synthetic,
        (None, Mix::SyntheticOnly | Mix::Pretrain) => Further::SyntheticOnly,
    };
    let mixture = Mixture { ratio: arm.ratio, further, ..real };
    let recipe = &recipe.shortened(arm.budget_share.unwrap_or(1.0));
    let Some(share) = arm.pretrain_share else {
        return vec![Phase { verb: "train", mixture, recipe: recipe.clone() }];
    };
    let first = |whole: usize| ((whole as f64 * share).round() as usize).clamp(1, whole.max(2) - 1);
    let parts = |whole: usize| [first(whole), whole.saturating_sub(first(whole)).max(1)];
    let part = |i: usize| recipe.of_length(parts(recipe.length())[i]);
    [("pretrain", mixture), ("fine-tune", real)]
        .into_iter()
        .enumerate()
        .map(|(i, (verb, mixture))| Phase { verb, mixture, recipe: part(i) })
        .collect()
}

/// Synthetic images at a task's size.
fn at_size(b: &mut Builder, images: &str, image_size: usize) -> String {
    let inputs = vec![input("source", images)];
    b.add(
        format!("prepare synthetic images at {image_size} px"),
        Work::PrepareSynthetic { image_size },
        inputs,
        vec![],
    )
}

/// A generator's stages.
struct Generators<'a> {
    spec: &'a ResolvedSpec,
    digests: &'a OutsideDigests,
    prepare: &'a dyn Fn(&mut Builder, usize) -> String,
    seg_data: Option<&'a str>,
}

#[derive(Clone)]
struct GeneratedSet {
    train: Option<String>,
    images: String,
    /// The images as segmentation takes them: at its size, with pseudo-masks, where these are asked for.
    masked: String,
}

impl Generators<'_> {
    fn outside(&self, role: &str, path: &std::path::Path) -> Option<Outside> {
        let digest = self.digests.folders.get(path).cloned().unwrap_or_default();
        let there = !path.as_os_str().is_empty();
        there.then(|| Outside { role: role.into(), path: path.to_owned(), digest })
    }

    /// Trains the generator on `patients` (all of the training split where none are given).
    fn trained(&mut self, b: &mut Builder, name: &str, patients: Option<Fraction>) -> Option<String> {
        let settings = self.spec.generators.get(name)?;
        if !settings.is_trained() {
            return None;
        }
        let data = (self.prepare)(b, settings.image_size);
        let (mut inputs, mut outside) = (vec![input("data", &data)], vec![]);
        match self.spec.generators.get(&settings.source.base) {
            // A base that only sampled would have seen other patients, so it is trained on the same.
            Some(base) if base.is_trained() => {
                let key = self.trained(b, &settings.source.base, patients);
                inputs.extend(key.map(|key| input("base", &key)));
            }
            Some(base) => outside.extend(self.outside("base", &base.source.pipeline)),
            None => outside.extend(self.outside("base", settings.source.base.as_ref())),
        }
        let judges = self.judges(b, settings, patients, &mut inputs);
        let work = Work::TrainGenerator { settings: Box::new(settings.clone()), patients, judges };
        let label = format!("train {name}{}: {}", of(patients), budget(settings));
        Some(b.add(label, work, inputs, outside))
    }

    /// What measures the generator while it is trained, if that is asked for; their networks become `inputs`.
    fn judges(
        &self,
        b: &mut Builder,
        generator: &Generator,
        patients: Option<Fraction>,
        inputs: &mut Vec<Input>,
    ) -> Option<Box<QualityJudges>> {
        if generator.quality.quality_every == 0 {
            return None;
        }
        let masked = generator.mode == Mode::TextSegmentation;
        let segmentation = if masked { self.own_network(b, patients) } else { None };
        if let Some((_, network)) = &segmentation {
            inputs.push(input(QualityJudges::SEGMENTATION, network));
        }
        let own = self.spec.measure.as_ref().map(|measure| &measure.extractor);
        let domain = match own.filter(|extractor| extractor.name == Extractor::Domain) {
            Some(extractor) => extractor.domain_training(),
            None => Measure::default().extractor.domain_training(),
        };
        let first = self.spec.experiment.seeds.first().copied().unwrap_or_default();
        let Fraction { fraction, seed } = patients.unwrap_or(Fraction { fraction: 1.0, seed: first });
        let data = (self.prepare)(b, domain.recipe.image_size);
        let work = Work::TrainClassification {
            settings: domain.clone(),
            model: Backbone::Resnet18,
            mixture: Mixture::real(fraction, seed),
        };
        let label =
            format!("train the domain extractor: resnet18 on view and phase{}, seed {seed}", of(patients));
        inputs.push(input(QualityJudges::DOMAIN, &b.add(label, work, vec![input("data", &data)], vec![])));
        Some(Box::new(QualityJudges { segmentation: segmentation.map(|(task, _)| task), domain }))
    }

    fn made(&mut self, b: &mut Builder, name: &str, patients: Option<Fraction>) -> GeneratedSet {
        let settings = &self.spec.generators[name];
        if settings.mode == Mode::External {
            let outside = self.outside("source", &settings.source.folder).into_iter().collect();
            let images = b.add(format!("import images of {name}"), Work::ImportSynthetic {}, vec![], outside);
            return GeneratedSet { train: None, masked: self.with_masks(b, name, patients, &images), images };
        }
        let train = self.trained(b, name, patients);
        let own = settings.mode != Mode::Inpaint;
        // What inpainting samples was trained for another generator, whose curves are there.
        let networks = if own { train.clone() } else { self.trained(b, &settings.source.base, patients) };
        let data = (self.prepare)(b, settings.image_size);
        let mut inputs = vec![input("data", &data)];
        inputs.extend(networks.iter().map(|key| input("generator", key)));
        let mut outside: Vec<Outside> =
            self.outside("controlnet", &settings.source.controlnet).into_iter().collect();
        let finished = match self.spec.generators.get(&settings.source.base) {
            Some(base) if !own => &base.source.pipeline,
            _ => &settings.source.pipeline,
        };
        outside.extend(self.outside("pipeline", finished));
        let work = Work::Generate { settings: Box::new(settings.clone()), patients };
        let count = VIEW_PHASES * settings.sampling.per_class_images * settings.sampling.candidates;
        let label = format!(
            "{count} images of {name}{}: {} steps each",
            of(patients),
            settings.sampling.sampling_steps
        );
        let images = b.add(label, work, inputs, outside);
        let images = self.selected(b, name, patients, images);
        GeneratedSet { train, masked: self.with_masks(b, name, patients, &images), images }
    }

    /// The images with the masks that a network trained on the same patients' real images sees.
    fn with_masks(&self, b: &mut Builder, name: &str, patients: Option<Fraction>, images: &str) -> String {
        if !self.spec.generators[name].sampling.pseudo_masks {
            return images.to_owned();
        }
        let Some((task, network)) = self.own_network(b, patients) else { return images.to_owned() };
        let images = at_size(b, images, task.recipe.image_size);
        let inputs = vec![input("network", &network), input("data", &images)];
        b.add(
            format!("pseudo-masks of {name}{}", of(patients)),
            Work::PseudoMasks { settings: task },
            inputs,
            vec![],
        )
    }

    /// Of the candidates for each image the one in which that network sees most of the mask.
    fn selected(&self, b: &mut Builder, name: &str, patients: Option<Fraction>, images: String) -> String {
        let candidates = self.spec.generators[name].sampling.candidates;
        if candidates < 2 {
            return images;
        }
        let Some((task, network)) = self.own_network(b, patients) else { return images };
        let seen = at_size(b, &images, task.recipe.image_size);
        let inputs = vec![input("network", &network), input("data", &images), input("seen", &seen)];
        b.add(
            format!("best of {candidates} candidates of {name}{}", of(patients)),
            Work::SelectCandidates { settings: task, candidates },
            inputs,
            vec![],
        )
    }

    /// The segmentation task and its network that is trained on the real images of these patients.
    fn own_network(&self, b: &mut Builder, patients: Option<Fraction>) -> Option<(Segmentation, String)> {
        let (task, data) = (self.spec.tasks.segmentation.as_ref()?, self.seg_data?);
        let first = self.spec.experiment.seeds.first().copied().unwrap_or_default();
        let Fraction { fraction, seed } = patients.unwrap_or(Fraction { fraction: 1.0, seed: first });
        let work = Work::TrainSegmentation { settings: task.clone(), mixture: Mixture::real(fraction, seed) };
        let label =
            format!("train segmentation {}, only real images{}, seed {seed}", task.model, of(patients));
        Some((task.clone(), b.add(label, work, vec![input("data", data)], vec![])))
    }
}

/// What training costs, in words.
fn budget(settings: &Generator) -> String {
    let models = if settings.has_model_per_class() { "4 x " } else { "" };
    let batch = settings.training.batch_size * settings.training.accumulate;
    format!("{models}{} steps of {batch} images, {} px", settings.training.steps, settings.image_size)
}

/// The end of a label: which patients, where they are not all.
fn of(patients: Option<Fraction>) -> String {
    patients.map(|patients| patients.to_string()).unwrap_or_default()
}

/// Texture, and what networks that were trained on all real images (the first seed's) see in the generator's images.
fn judged(
    b: &mut Builder,
    spec: &ResolvedSpec,
    digests: &OutsideDigests,
    cell: GeneratorCell,
    made: GeneratedSet,
    data: String,
) -> GeneratorStages {
    let label = cell.label();
    let settings = &spec.generators[&cell.name];
    // Masks that a network made of the images say nothing of how well images and masks agree.
    let has_masks = match settings.mode {
        Mode::TextSegmentation | Mode::Inpaint => true,
        Mode::External => digests.masked.contains(&settings.source.folder) && !settings.sampling.pseudo_masks,
        Mode::Unconditional | Mode::Text => false,
    };
    let judge = spec.judge().map(|arm| arm.name.clone());
    let networks: Vec<NetworkStages> =
        b.plan.networks.iter().filter(|stages| Some(&stages.cell.arm) == judge.as_ref()).cloned().collect();
    let mut judged: Vec<(Task, String)> = Vec::new();
    for NetworkStages { cell: network, train, .. } in networks {
        if judged.iter().any(|(task, _)| *task == network.task) {
            continue;
        }
        let (work, size) = match (network.task, &spec.tasks.segmentation, &spec.tasks.classification) {
            (Task::Segmentation, Some(task), _) if has_masks => {
                (Work::JudgeSegmentation { settings: task.clone() }, task.recipe.image_size)
            }
            (Task::Classification, _, Some(task)) => {
                let Ok(model) = network.model.parse() else { continue };
                (Work::JudgeClassification { settings: task.clone(), model }, task.recipe.image_size)
            }
            _ => continue,
        };
        let images = at_size(b, &made.images, size);
        let inputs = vec![input("network", &train), input("data", &images)];
        let key = b.add(format!("judge images of {label}: {}", network.task), work, inputs, vec![]);
        judged.push((network.task, key));
    }
    let images = match settings.mode == Mode::External {
        true => at_size(b, &made.images, settings.image_size),
        false => made.images.clone(),
    };
    let inputs = vec![input("synthetic", &images), input("data", &data)];
    let texture = b.add(format!("texture of {label}"), Work::MeasureTexture {}, inputs, vec![]);
    GeneratorStages { cell, data, train: made.train, images: made.images, texture, distances: None, judged }
}

/// How far a generator's images are from real ones of its size; and, once a size, how far real ones are from
/// each other, and blurred ones and noise from real ones.
fn distances(
    b: &mut Builder,
    spec: &ResolvedSpec,
    digests: &OutsideDigests,
    prepare: &dyn Fn(&mut Builder, usize) -> String,
    stages: &GeneratorStages,
) -> Option<String> {
    let measure = spec.measure.as_ref()?;
    let name = &stages.cell.name;
    let settings = &spec.generators[name];
    let size = settings.image_size;
    let mut inputs = vec![input("data", &prepare(b, size))];
    let mut outside = Vec::new();
    if measure.extractor.name == Extractor::Domain {
        let task = measure.extractor.domain_training();
        let data = prepare(b, task.recipe.image_size);
        let model = Backbone::Resnet18;
        let seed = spec.experiment.seeds.first().copied().unwrap_or_default();
        let work = Work::TrainClassification { settings: task, model, mixture: Mixture::real(1.0, seed) };
        let label = format!("train the domain extractor: resnet18 on view and phase, seed {seed}");
        let network = b.add(label, work, vec![input("data", &data)], vec![]);
        inputs.push(input("network", &network));
    } else {
        outside.push(Outside {
            role: "weights".into(),
            path: measure.extractor.weights.clone(),
            digest: digests.extractor_weights.clone().unwrap_or_default(),
        });
    }
    if !b.plan.references.contains_key(&size) {
        let of_size = spec.generators.values().filter(|g| g.image_size == size);
        let per_class =
            of_size.map(|g| g.sampling.per_class_images).max().unwrap_or(settings.sampling.per_class_images);
        let work = Work::MeasureReference { measure: measure.clone(), per_class };
        let label = format!("distances of real, blurred and noise images at {size} px");
        let key = b.add(label, work, inputs.clone(), outside.clone());
        b.plan.references.insert(size, key);
    }
    let images = match settings.mode == Mode::External {
        true => at_size(b, &stages.images, size),
        false => stages.images.clone(),
    };
    inputs.push(input("synthetic", &images));
    let work = Work::MeasureGenerator { measure: measure.clone() };
    Some(b.add(format!("distances of {name}"), work, inputs, outside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiment, plan::StageKind};

    fn plan(text: &str) -> Plan {
        let typed = experiment::parse(text, "t".as_ref(), &[]).unwrap();
        build(&experiment::resolve(typed).unwrap(), &OutsideDigests::default())
    }

    #[test]
    fn shared_stages_stand_once_and_inputs_come_first() {
        let text = "[experiment]\nseeds=[0,1]\n[data]\nsource=\"phantom\"\n[[arms]]\n[[arms]]\nname=\"twin\"\n[tasks.segmentation]\n";
        let plan = plan(text);
        // phantom, import, prepare, 2 x (train, measure), report: the twin arm shares its networks.
        assert_eq!(plan.stages.len(), 8);
        assert_eq!(plan.networks.len(), 4);
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

    const GENERATORS: &str = "[data]\nsource=\"phantom\"\n[generators.a]\nmode=\"unconditional\"\n[generators.b]\nmode=\"text\"\nper_class_images=7\n";

    fn labels(plan: &Plan, start: &str) -> usize {
        plan.stages.iter().filter(|stage| stage.label.starts_with(start)).count()
    }

    #[test]
    fn a_generator_of_few_patients_is_judged_at_each_seed() {
        let arms =
            "[[arms]]\n[[arms]]\nname=\"few {ratio}\"\nreal_fraction=0.5\nsynthetic=\"a\"\nratio=[0.5,1.0]\n";
        let plan = plan(&format!(
            "[experiment]\nseeds=[0,1]\n[data]\nsource=\"phantom\"\n[generators.a]\nmode=\"text+segmentation\"\n{arms}[tasks.segmentation]\n[measure]\n"
        ));
        assert_eq!(labels(&plan, "train a"), 2);
        for (stages, seed) in plan.generators.iter().zip([0, 1]) {
            let label = stages.cell.label();
            assert_eq!(label, format!("a, 50% of the patients, seed {seed}"));
            assert_eq!((stages.judged.len(), &stages.distances), (1, &None));
            let roles = ["train", "images", "texture", "judge-segmentation"]
                .map(|what| format!("generator/{what}/{label}"));
            let report = plan.stages.last().unwrap();
            assert!(
                roles.iter().all(|role| report.inputs.iter().any(|input| input.role == *role)),
                "{roles:?}"
            );
        }
        assert_eq!(plan.generators.len(), 2);
    }

    #[test]
    fn generators_of_one_size_share_the_scale_of_their_distances_and_its_network() {
        let plan = plan(&format!("{GENERATORS}[measure]\n"));
        assert_eq!(labels(&plan, "distances of real, blurred"), 1);
        assert_eq!(labels(&plan, "train the domain extractor"), 1);
        assert_eq!((labels(&plan, "distances of a"), labels(&plan, "distances of b")), (1, 1));
        let reference = &plan.references[&128];
        let stage = &plan.stages[plan.by_key()[reference.as_str()]];
        // As many images as the generator that makes the most.
        assert!(matches!(stage.work, Work::MeasureReference { per_class: 100, .. }));
        assert!(plan.generators.iter().all(|cell| cell.distances.is_some()));
        let report = plan.stages.last().unwrap();
        assert!(report.inputs.iter().any(|i| i.role == "reference/128" && i.key == *reference));
    }

    #[test]
    fn without_measure_nothing_is_added_and_its_settings_train_no_generator_again() {
        let (without, with) = (plan(GENERATORS), plan(&format!("{GENERATORS}[measure]\n")));
        assert!(without.references.is_empty() && labels(&without, "distances") == 0);
        let other =
            plan(&format!("{GENERATORS}[measure]\nneighbours=3\n[measure.extractor]\nlearning_rate=0.5\n"));
        let keys = |plan: &Plan, start: &str| -> Vec<String> {
            let of = plan.stages.iter().filter(|stage| stage.label.starts_with(start));
            of.map(|stage| stage.key.clone()).collect()
        };
        for start in ["train a", "train b", "28 images of b"] {
            assert_eq!(keys(&without, start), keys(&with, start));
            assert_eq!(keys(&with, start), keys(&other, start));
        }
        assert_ne!(keys(&with, "distances of a"), keys(&other, "distances of a"));
        assert_ne!(keys(&with, "train the domain"), keys(&other, "train the domain"));
    }
}

//! What is filled in, what is refused, and that the reference knows every key.

use std::collections::BTreeSet;

use super::super::{
    Classification, Generator, GeneratorPreset, Measure, Preset, Schedule, Segmentation, load, parse,
};
use super::*;
use crate::vocabulary::Mode;

const SMALL: &str = "[experiment]\nseeds = [0, 1]\n\n[data]\nsource = \"phantom\"\n\n[[arms]]\n\n[tasks.segmentation]\nepochs = 3\n";

fn message(text: &str, sets: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("spec.toml");
    std::fs::write(&file, text).unwrap();
    let sets: Vec<String> = sets.iter().map(|s| s.to_string()).collect();
    let error = load(&file, &sets, false).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string()
}

#[test]
fn defaults_are_filled_in_and_the_preset_gives_the_faults() {
    let spec = resolve(parse(SMALL, Path::new("s"), &[]).unwrap()).unwrap();
    let task = spec.tasks.segmentation.unwrap().recipe;
    assert_eq!((task.epochs, task.batch_size, task.shuffle), (3, 4, true));
    let sets = ["tasks.segmentation.preset=paper-code".to_owned(), "tasks.segmentation.shuffle=true".into()];
    let spec = resolve(parse(SMALL, Path::new("s"), &sets).unwrap()).unwrap();
    let task = spec.tasks.segmentation.unwrap().recipe;
    assert!(
        task.shuffle
            && task.augment.interpolation == crate::experiment::Interpolation::Nearest
            && task.epochs == 3
    );
}

#[test]
fn a_margin_is_above_0_and_of_a_score() {
    let with = |margins: &str| format!("{SMALL}\n[report.margins]\n{margins}\n");
    let spec = resolve(parse(&with("dice = 0.01\nef_error = 1"), Path::new("s"), &[]).unwrap()).unwrap();
    assert_eq!((spec.report.margins["dice"], spec.report.margins["ef_error"]), (0.01, 1.0));
    let again = resolve(parse(&spec.to_toml(), Path::new("s"), &[]).unwrap()).unwrap();
    assert_eq!(again, spec);
    assert!(!resolve(parse(SMALL, Path::new("s"), &[]).unwrap()).unwrap().to_toml().contains("margins"));
    for (margins, parts) in [
        (
            "dice = 0.0",
            ["spec.toml:13: `report.margins.dice`: a margin of 0 is not above 0", "such as dice = 0.01"],
        ),
        (
            "\nef_error = -1",
            ["spec.toml:14: `report.margins.ef_error`: a margin of -1 is not above 0", "ef_error = 1.0"],
        ),
        (
            "hd95 = nan",
            ["spec.toml:13: `report.margins.hd95`: a margin of NaN", "largest difference in HD95"],
        ),
        ("accuracy = 2.0", ["every difference lies within a margin of 2", "such as accuracy = 0.01"]),
        (
            "dise = 0.1",
            ["spec.toml:13: `report.margins.dise`: arms are not compared", "did you mean `dice`?"],
        ),
        (
            "speed = 0.1",
            ["spec.toml:13: `report.margins.speed`", "dice, hd95, hd, assd, iou, ef_error, accuracy"],
        ),
        ("dice = \"small\"", ["spec.toml:13: invalid type", "write a number"]),
    ] {
        let message = message(&with(margins), &[]);
        assert!(parts.iter().all(|part| message.contains(part)), "{margins}: {message}");
    }
    let message = message(SMALL, &["report.margins.dice=-0.5"]);
    assert!(
        message.contains("--set report.margins.dice=-0.5: `report.margins.dice`: a margin of -0.5"),
        "{message}"
    );
}

#[test]
fn a_resolved_spec_is_a_spec_that_resolves_to_itself() {
    for extra in ["", "split = \"folds\"\n", "test_from = \"val\"\n", "split = \"random\"\n"] {
        let text = SMALL.replace("\n\n[[arms]]", &format!("\n{extra}\n[[arms]]\nreal_fraction = [0.1, 1.0]"));
        for task in ["", "preset = \"paper-code\"\n", "preset = \"paper-code\"\ntrainable_parameters = 0\n"] {
            let text = format!("{text}[tasks.classification]\n{task}");
            let spec = resolve(parse(&text, Path::new("s"), &[]).unwrap()).unwrap();
            let again = resolve(parse(&spec.to_toml(), Path::new("s"), &[]).unwrap()).unwrap();
            assert_eq!(again, spec);
        }
    }
}

#[test]
fn a_resolved_generator_resolves_to_itself_key_by_key_in_one_order() {
    let mut orders = BTreeSet::new();
    for preset in ["cpu", "diffecho", "motfm"] {
        for mode in [
            "unconditional",
            "text",
            "text+segmentation\"\nconditioning = \"channels",
            "external\"\nfolder = \".",
        ] {
            let text = format!(
                "[data]\nsource = \"phantom\"\n\n[generators.a]\npreset = \"{preset}\"\nmode = \"{mode}\"\n"
            );
            let spec = resolve(parse(&text, Path::new("s"), &[]).unwrap()).unwrap();
            let written = spec.to_toml();
            let again = resolve(parse(&written, Path::new("s"), &[]).unwrap()).unwrap();
            assert_eq!((&again, again.to_toml()), (&spec, written.clone()));
            let table = written.split("[generators.a]\n").nth(1).unwrap().split("\n\n[[").next().unwrap();
            let keys = table.lines().map(|line| line.split(" = ").next().unwrap());
            orders.insert(keys.collect::<Vec<_>>().join(" "));
        }
    }
    // Reports are compared byte for byte, and they hold the resolved spec.
    let order = "preset mode base pipeline controlnet folder image_size image_space patch per_class conditioning \
                 sector channels layers_per_block attention_levels attention_head_dim norm_num_groups \
                 resnet_time_scale_shift text_width text_layers text_heads text_tokens autoencoder_channels \
                 latent_channels autoencoder_steps autoencoder_learning_rate prompt random_tokens objective time_sampling \
                 optimal_transport mask_start prediction betas \
                 steps batch_size accumulate learning_rate schedule warmup_steps weight_decay clip ema \
                 prompt_dropout drop_masks min_snr_gamma precision flip validate_every grid_every quality_every quality_images checkpoint seed scheduler \
                 sampling_steps noise_levels shift guidance negative_prompt per_class_images per_mask candidates keep resample vary_masks \
                 pseudo_masks sampling_batch  [generators.a.augment] enabled rotate translate translate_unit scale \
                 shear brightness contrast gamma noise interpolation";
    assert_eq!(orders.into_iter().collect::<Vec<_>>(), [order]);
}

#[test]
fn with_a_budget_arms_of_any_size_have_the_same_rate_at_the_same_step() {
    let schedule = |task: &str| {
        let text = format!("[data]\nsource = \"phantom\"\n\n[tasks.segmentation]\n{task}\n");
        resolve(parse(&text, Path::new("s"), &[]).unwrap())
            .unwrap()
            .tasks
            .segmentation
            .unwrap()
            .recipe
            .schedule
    };
    assert_eq!(schedule(""), Schedule::Cosine);
    assert_eq!(schedule("budget = { steps = 9 }"), Schedule::CosinePerStep);
    assert_eq!(schedule("schedule = \"cosine\"\nbudget = { steps = 9 }"), Schedule::CosinePerStep);
}

#[test]
fn a_budget_by_set_takes_the_place_of_the_files_epochs() {
    let sets = ["tasks.segmentation.budget.steps=50".to_owned()];
    let spec = parse(SMALL, Path::new("s"), &sets).unwrap();
    let origin = Origin { file: Path::new("s"), text: SMALL, sets: &sets };
    let task = resolve_in(spec, "s", &origin, false).unwrap().spec.tasks.segmentation.unwrap().recipe;
    assert_eq!((task.epochs, task.budget.unwrap().steps), (0, 50));
}

#[test]
fn a_list_sweeps() {
    let text = format!("{SMALL}\n[[arms]]\nname = \"few {{real_fraction}}\"\nreal_fraction = [0.05, 0.5]\n");
    let spec = resolve(parse(&text, Path::new("s"), &[]).unwrap()).unwrap();
    let names: Vec<_> = spec.arms.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names, ["real", "few 5%", "few 50%"]);
}

#[test]
fn faults_name_file_line_and_remedy() {
    for (text, sets, expected) in [
        (
            SMALL.replace("epochs", "epoks"),
            vec![],
            vec!["spec.toml:10: unknown field `epoks`", "did you mean `epochs`?"],
        ),
        (
            SMALL.replace("epochs = 3", "budget = { validate_every = 5 }"),
            vec![],
            vec!["spec.toml:10: `steps` is missing", "write steps = … there"],
        ),
        (SMALL.replace("= 3", "= \"three\""), vec![], vec!["spec.toml:10: invalid type: string"]),
        (
            SMALL.replace("= 3", "= 0"),
            vec![],
            vec!["spec.toml:10: `tasks.segmentation.epochs`: 0 is out of range", "choose a value from 1"],
        ),
        (
            SMALL.replace("epochs = 3", "epochs = 3\nbudget = { steps = 50 }"),
            vec![],
            vec![
                "spec.toml:10: `tasks.segmentation.epochs`: the budget of 50 steps says how long it trains",
                "remove `epochs` or `budget`",
            ],
        ),
        (
            SMALL.replace("epochs = 3", "budget = { steps = 50 }"),
            vec!["tasks.segmentation.epochs=1"],
            vec!["--set tasks.segmentation.epochs=1: ", "--set tasks.segmentation.budget.steps=STEPS"],
        ),
        (
            SMALL.replace("phantom", "fantom"),
            vec![],
            vec!["spec.toml:5: unknown variant `fantom`", "did you mean `phantom`?"],
        ),
        (SMALL.replace("phantom", "camus"), vec![], vec!["spec.toml:4: `data.root`: is missing"]),
        (
            SMALL.to_owned(),
            vec!["tasks.segmentation.epoks=4"],
            vec!["--set tasks.segmentation.epoks=4: unknown field", "did you mean `epochs`?"],
        ),
        (
            format!("{SMALL}[tasks.classification]\nfreeze = \"exact\"\n"),
            vec![],
            vec![
                "spec.toml:12: `tasks.classification.freeze`: \"exact\" has no budget",
                "set trainable_parameters",
            ],
        ),
        (
            SMALL.replace("[[arms]]", "[generators.a]\nmode = \"text+segmentation\"\n\n[[arms]]\nsynthetic = \"a\"\nmix = \"pretrain\"")
                .replace("= 3", "= 1"),
            vec![],
            vec!["`tasks.segmentation`: one step or epoch cannot be shared out", "at least two"],
        ),
        (
            SMALL.to_owned(),
            vec!["tasks.segmentation.epochs=-1"],
            vec!["--set tasks.segmentation.epochs=-1: "],
        ),
        (
            SMALL.to_owned(),
            vec!["tasks.segmentation.batch_size=0"],
            vec!["--set tasks.segmentation.batch_size=0: ", "out of range"],
        ),
        (
            SMALL.to_owned(),
            vec!["data.source=camus", "data.root=nowhere"],
            vec!["--set data.root=nowhere: ", "nowhere does not exist"],
        ),
        (SMALL.to_owned(), vec!["arms.3.name=x"], vec!["the list has no item `3`"]),
        (SMALL.to_owned(), vec!["tasks.segmentation.image_size=200"], vec!["cannot be halved 7 times"]),
        (
            format!("{SMALL}[[arms]]\n"),
            vec![],
            vec!["spec.toml:11: `arms.1`: there are two arms named \"real\""],
        ),
        (
            format!("{SMALL}[[arms]]\nreal_fraction = 1.5\n"),
            vec![],
            vec!["spec.toml:12: `arms.1.real_fraction`: 1.5 is out of range"],
        ),
        ("[experiment\n".to_owned(), vec![], vec!["spec.toml:1: "]),
    ] {
        let message = message(&text, &sets);
        for part in expected {
            assert!(message.contains(part), "{message}\n lacks {part}");
        }
    }
}

const REFERENCE: &str = include_str!("../../../docs/spec.md");

/// The section of the reference whose heading names `table`.
fn section(table: &str) -> &'static str {
    let named = format!("[{table}]");
    let of_table = |section: &&str| section.lines().next().is_some_and(|line| line.contains(&named));
    let found = REFERENCE.split("\n## ").find(of_table);
    found.unwrap_or_else(|| panic!("docs/spec.md has no heading for {named}"))
}

/// The cells of the rows that begin with a key.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

/// What stands in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The keys that have values, each with its table; NAME stands for a generator's name.
fn keys(table: &toml::Table, path: &str, found: &mut BTreeSet<(String, String)>) {
    for (key, value) in table {
        let below = match path {
            "" => key.clone(),
            "generators" => "generators.NAME".to_owned(),
            _ => format!("{path}.{key}"),
        };
        match value {
            toml::Value::Table(table) => keys(table, &below, found),
            toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                for table in items.iter().filter_map(toml::Value::as_table) {
                    keys(table, &below, found);
                }
            }
            _ => {
                found.insert((path.to_owned(), key.clone()));
            }
        }
    }
}

#[test]
fn the_reference_has_every_key_and_no_other() {
    let rest = "[generators.a]\nmode = \"unconditional\"\n\n[[arms]]\n\n[[arms]]\nbudget_share = 0.5\n\n[[arms]]\nsynthetic = \"a\"\nmix = \"pretrain\"\n\n[[arms]]\ncontrol = \"duplicate-real\"\n\n[tasks.segmentation]\npreset = \"strong\"\nflip_test = true\nbudget = { steps = 100 }\n\n[tasks.classification]\nbudget = { steps = 100 }\nsynthetic_per_class = 800\n\n[measure]\n\n[report]\npublished = \"experiments/published.toml\"\n\n[report.margins]\ndice = 0.01\niou = 0.01\nhd95 = 1.0\nhd = 1.0\nassd = 1.0\nef_error = 1.0\naccuracy = 0.01\n";
    let mut found = BTreeSet::new();
    for data in [
        "source = \"phantom\"\ntest_from = \"val\"",
        "source = \"folder\"\nroot = \".\"\nsplit = \"folds\"",
        "source = \"phantom\"\nsplit = \"random\"",
    ] {
        let text = format!("[data]\n{data}\n\n{rest}");
        let spec = resolve(parse(&text, Path::new("s"), &[]).unwrap()).unwrap();
        keys(&spec.to_toml().parse::<toml::Table>().unwrap(), "", &mut found);
    }
    for (table, key) in &found {
        let there = rows(section(table)).any(|cells| quoted(cells[0]).any(|word| word == key));
        assert!(there, "docs/spec.md: [{table}] lacks `{key}`");
    }
    let is_key = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    for cells in rows(REFERENCE) {
        for word in quoted(cells[0]).filter(is_key) {
            assert!(found.iter().any(|(_, key)| key == word), "docs/spec.md: there is no key `{word}`");
        }
    }
}

/// The value in a cell of defaults: "`8`", or by mode "u `16`; t, s `1`". None: there is none to compare.
fn said(cell: &str, mode: &str) -> Option<toml::Value> {
    let of_mode = |part: &&str| {
        part.split('`').next().is_some_and(|modes| modes.split(',').any(|one| one.trim() == mode))
    };
    let part = if cell.starts_with('`') { cell } else { cell.split(';').find(of_mode)? };
    format!("v = {}", quoted(part).next()?).parse::<toml::Table>().ok()?.remove("v")
}

fn compare(table: &str, column: usize, mode: &str, resolved: &toml::Table) {
    let mut compared = 0;
    for cells in rows(section(table)).filter(|cells| cells.len() > column) {
        let Some(value) = resolved.get(cells[0].trim_matches('`')) else { continue };
        // An empty cell: as to its left.
        let cell = if cells[column].is_empty() { cells[column - 1] } else { cells[column] };
        if let Some(said) = said(cell, mode) {
            assert_eq!(&said, value, "docs/spec.md: [{table}] {} {mode}", cells[0]);
            compared += 1;
        }
    }
    assert!(compared > 5, "[{table}]: {compared} defaults compared");
}

/// The reference names every key in which `strong` differs from `corrected`, and its value, and no other key.
#[test]
fn the_strong_preset_differs_as_documented() {
    let start = REFERENCE.find("### The preset `strong`").unwrap();
    let table = REFERENCE[start + 4..].split("\n#").next().unwrap();
    let flat = |preset| {
        let mut settings = toml::Table::try_from(Segmentation::preset(preset)).unwrap();
        let augment = settings.remove("augment").unwrap();
        let augment = augment.as_table().unwrap().clone();
        settings.extend(augment.into_iter().map(|(key, value)| (format!("augment.{key}"), value)));
        settings
    };
    let (corrected, strong) = (flat(Preset::Corrected), flat(Preset::Strong));
    let mut differ = 0;
    for (key, value) in
        strong.iter().filter(|(key, value)| *key != "preset" && corrected.get(*key) != Some(value))
    {
        let row = rows(table).find(|cells| cells[0].trim_matches('`') == key);
        let row = row.unwrap_or_else(|| panic!("docs/spec.md: the preset strong lacks {key}"));
        assert_eq!(said(row[1], "").as_ref(), Some(value), "docs/spec.md: {key}");
        differ += 1;
    }
    assert_eq!(rows(table).count(), differ);
}

/// The reference names every key in which `motfm` differs from `cpu`, and its value.
fn the_successors_preset_differs_as_documented() {
    let start = REFERENCE.find("### The preset `motfm`").unwrap();
    let table = REFERENCE[start + 4..].split("\n#").next().unwrap();
    for (letter, mode) in [("u", Mode::Unconditional), ("t", Mode::Text), ("s", Mode::TextSegmentation)] {
        let of = |preset| toml::Table::try_from(Generator::preset(preset, mode)).unwrap();
        let (cpu, motfm) = (of(GeneratorPreset::Cpu), of(GeneratorPreset::Motfm));
        for (key, value) in motfm.iter().filter(|(key, value)| *key != "preset" && cpu[*key] != **value) {
            // Of the augmentation one key is another.
            let (name, value) = match value {
                toml::Value::Table(table) => (format!("`{key}.enabled`"), &table["enabled"]),
                value => (format!("`{key}`"), value),
            };
            let row = rows(table).find(|cells| cells[0] == name);
            let row = row.unwrap_or_else(|| panic!("docs/spec.md: the preset motfm lacks {name} of {mode}"));
            assert_eq!(said(row[1], letter).as_ref(), Some(value), "docs/spec.md: {name} {mode}");
        }
    }
}

#[test]
fn the_references_defaults_are_the_presets() {
    for (column, preset) in [(3, Preset::Corrected), (4, Preset::PaperCode)] {
        for (task, settings) in [
            ("segmentation", toml::Table::try_from(Segmentation::preset(preset)).unwrap()),
            ("classification", toml::Table::try_from(Classification::preset(preset)).unwrap()),
        ] {
            let augment = settings["augment"].as_table().unwrap();
            compare(&format!("tasks.{task}"), column, "", &settings);
            compare(&format!("tasks.{task}.augment"), column, "", augment);
        }
    }
    for (column, preset) in [(4, GeneratorPreset::Cpu), (5, GeneratorPreset::Diffecho)] {
        for (letter, mode) in [("u", Mode::Unconditional), ("t", Mode::Text), ("s", Mode::TextSegmentation)] {
            let settings = toml::Table::try_from(Generator::preset(preset, mode)).unwrap();
            let augment = settings["augment"].as_table().unwrap();
            compare("generators.NAME", column, letter, &settings);
            compare("generators.NAME.augment", column + 1, letter, augment);
        }
    }
    the_successors_preset_differs_as_documented();
    let measure = toml::Table::try_from(Measure::default()).unwrap();
    compare("measure", 3, "", &measure);
    compare("measure.extractor", 3, "", measure["extractor"].as_table().unwrap());
}

//! Prompts: what a text says about an image, from a template.

use crate::{
    manifest::Row,
    random,
    vocabulary::{Phase, PromptField, Quality, Sex, View},
};

/// The prompt of an image: the template filled in; with `random_words`, each word replaced ([`random_tokens`]).
pub fn of_image(template: &str, random_words: bool, row: &Row) -> String {
    let text = of(template, row);
    if random_words { random_tokens(&text) } else { text }
}

/// The template filled in for an image. Parts of the template (between commas) that ask for what the manifest does
/// not hold are omitted.
///
/// Age bands: under 50, 50 to 69, 70 and over. EF bands: reduced (under 40 %), mildly reduced (40 to
/// 49 %), preserved, after the ESC's heart failure guideline of 2021.
pub fn of(template: &str, row: &Row) -> String {
    let parts: Vec<String> = template.split(',').filter_map(|part| filled(part, row)).collect();
    parts.join(",").trim().to_owned()
}

fn filled(part: &str, row: &Row) -> Option<String> {
    let mut text = part.to_owned();
    for field in PromptField::ALL {
        let braces = format!("{{{field}}}");
        if text.contains(&braces) {
            text = text.replace(&braces, value(field, row)?);
        }
    }
    Some(text)
}

fn value(field: PromptField, row: &Row) -> Option<&'static str> {
    Some(match field {
        PromptField::View => match row.view {
            View::TwoChamber => "two-chamber",
            View::FourChamber => "four-chamber",
        },
        PromptField::Phase => match row.phase {
            Phase::Ed => "ed",
            Phase::Es => "es",
        },
        PromptField::Quality => match row.quality? {
            Quality::Good => "good",
            Quality::Medium => "medium",
            Quality::Poor => "poor",
        },
        PromptField::Sex => match row.sex? {
            Sex::Female => "female",
            Sex::Male => "male",
        },
        PromptField::Age => match row.age? {
            age if age < 50.0 => "under fifty",
            age if age < 70.0 => "fifty to seventy",
            _ => "over seventy",
        },
        PromptField::EjectionFraction => match row.ef? {
            ef if ef < 40.0 => "reduced ejection fraction",
            ef if ef < 50.0 => "mildly reduced ejection fraction",
            _ => "preserved ejection fraction",
        },
    })
}

/// Every word as another word of six letters, always the same one: what the paper does, so that nothing
/// that the text encoder learned elsewhere is meant.
pub fn random_tokens(prompt: &str) -> String {
    let word = |word: &str| {
        let mut left = random::seed(0, "prompt token", &[]) ^ u64::from_le_bytes(first_bytes(word));
        (0..6)
            .map(|_| {
                let letter = char::from(b'a' + (left % 26) as u8);
                left /= 26;
                letter
            })
            .collect::<String>()
    };
    let words: Vec<String> = prompt
        .split(|c: char| !c.is_alphanumeric())
        .filter(|w| !w.is_empty())
        .map(|w| word(&w.to_lowercase()))
        .collect();
    words.join(" ")
}

fn first_bytes(word: &str) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(word.as_bytes()).as_bytes()[..8]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row { age: Some(71.0), ..Row::new("p", View::FourChamber, Phase::Es, "i.png") }
    }

    #[test]
    fn what_is_not_known_is_left_out_and_commas_stay() {
        let prompt = of("{view} view, {quality} quality, {phase}, {age}", &row());
        assert_eq!(prompt, "four-chamber view, es, over seventy");
        let paper = "An ultrasound image shows the heart in a {view} view during the {phase} phase.";
        let said = "An ultrasound image shows the heart in a four-chamber view during the es phase.";
        assert_eq!(of(paper, &row()), said);
    }

    #[test]
    fn random_tokens_are_six_letters_and_always_the_same() {
        let (a, b) = (random_tokens("two-chamber, ED"), random_tokens("ed Two"));
        let (a, b): (Vec<&str>, Vec<&str>) = (a.split(' ').collect(), b.split(' ').collect());
        assert!(a.iter().all(|w| w.len() == 6 && w.chars().all(|c| c.is_ascii_lowercase())));
        assert_eq!((a[0], a[2]), (b[1], b[0]));
        assert_ne!(a[0], a[1]);
    }
}

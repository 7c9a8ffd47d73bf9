//! A text with edits in it, which may lie within each other.

use std::ops::Range;

/// A piece of what an edit puts in the place of what was there.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// This.
    Text(String),
    /// What is in the text there, with the edits that lie within. An edit may have the same piece several times.
    Source(Range<usize>),
    /// What is in the text there, as it is.
    Original(Range<usize>),
    /// What only this mutant has: an error of the compiler in it is the mutant's.
    Own(u32, Vec<Part>),
}

/// In place of `range` there are `parts`.
#[derive(Clone, Debug)]
pub struct Edit {
    /// In bytes. Nothing is replaced if it is empty.
    pub range: Range<usize>,
    /// What there is instead.
    pub parts: Vec<Part>,
    /// The mutants that are switched on here.
    pub numbers: Vec<u32>,
}

/// What the edits have made of a text.
#[derive(Debug, Default)]
pub struct Rendered {
    pub text: String,
    /// What only one mutant has.
    pub own: Vec<(Range<usize>, u32)>,
    /// The edits, by their mutants.
    pub edits: Vec<(Range<usize>, Vec<u32>)>,
}

/// The text with its edits. Of two edits with the same range the first is the outer one.
pub fn render(text: &str, mut edits: Vec<Edit>) -> Rendered {
    // The outer before the inner, and an insertion before what begins there.
    edits.sort_by_key(|e| (e.range.start, !e.range.is_empty(), std::cmp::Reverse(e.range.end)));
    let mut rendered = Rendered::default();
    rendered.source(text, 0..text.len(), &edits);
    rendered
}

impl Rendered {
    /// Appends a piece of the text. All edits within it are among `edits`.
    fn source(&mut self, text: &str, range: Range<usize>, mut edits: &[Edit]) {
        let mut from = range.start;
        while let [edit, inner @ ..] = edits {
            edits = inner;
            if edit.range.start > range.end {
                break;
            }
            if edit.range.start < from || edit.range.end > range.end {
                continue;
            }
            self.text.push_str(&text[from..edit.range.start]);
            from = edit.range.end;
            let begin = self.text.len();
            self.parts(text, &edit.parts, inner);
            self.edits.push((begin..self.text.len(), edit.numbers.clone()));
            // An insertion has nothing within, and what begins where it is comes next.
            if !edit.range.is_empty() {
                let within = edits.iter().take_while(|e| e.range.start < edit.range.end).count();
                edits = &edits[within..];
            }
        }
        self.text.push_str(&text[from..range.end]);
    }

    fn parts(&mut self, text: &str, parts: &[Part], inner: &[Edit]) {
        for part in parts {
            match part {
                Part::Text(t) => self.text.push_str(t),
                Part::Source(range) => self.source(text, range.clone(), inner),
                Part::Original(range) => self.text.push_str(&text[range.clone()]),
                Part::Own(number, parts) => {
                    let begin = self.text.len();
                    self.parts(text, parts, inner);
                    self.own.push((begin..self.text.len(), *number));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(range: Range<usize>, parts: Vec<Part>) -> Edit {
        Edit {
            range,
            parts,
            numbers: vec![1],
        }
    }

    fn text(text: &str) -> Part {
        Part::Text(text.to_owned())
    }

    #[test]
    fn edits_within_each_other_compose_and_may_come_twice() {
        let outer = edit(
            1..4,
            vec![text("<"), Part::Source(1..4), text("|"), Part::Source(1..2), text(">")],
        );
        let inner = edit(1..2, vec![text("B")]);
        let last = edit(3..4, vec![text("D")]);
        assert_eq!(render("abcde", vec![last, outer, inner]).text, "a<BcD|B>e");
    }

    #[test]
    fn of_two_edits_of_one_range_the_first_is_the_outer_one() {
        let outer = edit(0..1, vec![text("("), Part::Source(0..1), text(")")]);
        let inner = edit(0..1, vec![text("!"), Part::Source(0..1)]);
        assert_eq!(render("a", vec![outer, inner]).text, "(!a)");
    }

    #[test]
    fn an_insertion_comes_before_what_begins_there() {
        let insertion = edit(1..1, vec![text("+")]);
        let other = edit(1..2, vec![text("["), Part::Source(1..2), text("]")]);
        assert_eq!(render("ab", vec![other, insertion]).text, "a+[b]");
    }

    #[test]
    fn what_a_mutant_owns_is_known_in_the_result() {
        let outer = edit(0..2, vec![text("ab or "), Part::Own(7, vec![Part::Source(0..1)])]);
        let rendered = render("ab", vec![outer]);
        let (range, number) = rendered.own[0].clone();
        assert_eq!((&rendered.text[range], number), ("a", 7));
        assert_eq!(rendered.edits[0].0, 0..7);
    }
}

//! Where the mutants of a file are, and the edits that put all of them there.
//!
//! An operator is replaced between the operands that it had, as if they were in brackets; cargo-mutants replaces its
//! text.

use crate::cfg;
use crate::list::{Genre, Mutant, Place};
use crate::render::{Edit, Part};
use std::collections::HashMap;
use std::ops::Range;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Block, Expr, ReturnType, Signature, Stmt};

/// What is to be done with the mutants of a file.
#[derive(Debug, Default)]
pub struct Sites {
    /// All of those that can be switched.
    pub edits: Vec<Edit>,
    /// Those in code that this build does not have.
    pub not_compiled: Vec<u32>,
    /// Those that no switch can be put around: in constants, and where a condition binds names.
    pub apart: Vec<u32>,
}

/// The sites of these mutants, all of which are in this file.
pub fn sites<'m>(text: &str, mutants: impl Iterator<Item = &'m Mutant>) -> syn::Result<Sites> {
    let file = syn::parse_file(text)?;
    let mut by_place: HashMap<(Genre, Place), Vec<&Mutant>> = HashMap::new();
    for mutant in mutants {
        by_place
            .entry((mutant.genre, mutant.span.start))
            .or_default()
            .push(mutant);
    }
    let mut finder = Finder {
        by_place,
        sites: Sites::default(),
        is_compiled: true,
        is_constant: false,
        is_chained: false,
    };
    finder.visit_file(&file);
    // Whatever is not where it was expected is built by itself.
    let lost = finder.by_place.into_values().flatten().map(|m| m.number);
    finder.sites.apart.extend(lost);
    Ok(finder.sites)
}

struct Finder<'m> {
    by_place: HashMap<(Genre, Place), Vec<&'m Mutant>>,
    sites: Sites,
    /// This build has what is being visited.
    is_compiled: bool,
    /// It is worked out by the compiler.
    is_constant: bool,
    /// It is one of several conditions that bind names.
    is_chained: bool,
}

fn text(text: impl Into<String>) -> Part {
    Part::Text(text.into())
}

fn range(of: &impl Spanned) -> Range<usize> {
    of.span().byte_range()
}

fn source(of: &impl Spanned) -> Part {
    Part::Source(range(of))
}

/// The operands with something in between.
fn between(left: &Expr, operator: &str, right: &Expr) -> Vec<Part> {
    vec![
        text("("),
        source(left),
        text(format!(") {operator} (")),
        source(right),
        text(")"),
    ]
}

/// Whether it binds names: then it can be nothing but a condition.
fn binds(condition: &Expr) -> bool {
    match condition {
        Expr::Let(_) => true,
        Expr::Binary(b) => matches!(b.op, BinOp::And(_)) && (binds(&b.left) || binds(&b.right)),
        _ => false,
    }
}

impl<'m> Finder<'m> {
    /// The mutants that begin there and can be switched.
    fn take(&mut self, genre: Genre, of: &impl Spanned) -> Vec<&'m Mutant> {
        let start = of.span().start();
        let place = Place {
            line: start.line,
            column: start.column + 1,
        };
        let mutants = self.by_place.remove(&(genre, place)).unwrap_or_default();
        let numbers = mutants.iter().map(|m| m.number);
        if !self.is_compiled {
            self.sites.not_compiled.extend(numbers);
        } else if self.is_constant {
            self.sites.apart.extend(numbers);
        } else {
            return mutants;
        }
        Vec::new()
    }

    /// In place of what was there: what each mutant has, or else what was there.
    fn switch(&mut self, range: Range<usize>, arms: Vec<(u32, Vec<Part>)>, otherwise: Vec<Part>) {
        let Some(first) = arms.first().map(|(number, _)| *number) else {
            return;
        };
        let numbers = arms.iter().map(|(number, _)| *number).collect();
        let mut parts = vec![text(format!("(match crate::schemata::at({first}) {{ "))];
        for (number, arm) in arms {
            parts.extend([text(format!("{number} => ")), Part::Own(number, arm), text(", ")]);
        }
        parts.push(text("_ => "));
        parts.extend(otherwise);
        parts.push(text(" })"));
        self.sites.edits.push(Edit { range, parts, numbers });
    }

    /// A place with one mutant, which is asked for as `is(N)`.
    fn single(&mut self, range: Range<usize>, number: u32, parts: Vec<Part>) {
        self.sites.edits.push(Edit {
            range,
            parts,
            numbers: vec![number],
        });
    }

    /// A function, of whose body `visit` finds the mutants.
    fn function(&mut self, signature: &Signature, body: &Block, visit: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.is_constant, signature.constness.is_some());
        let edits = self.sites.edits.len();
        let is_opaque = match &signature.output {
            ReturnType::Type(_, of) => matches!(**of, syn::Type::ImplTrait(_)),
            ReturnType::Default => false,
        };
        if let Some(first) = body.stmts.first() {
            let mutants = self.take(Genre::FnValue, first);
            match body.stmts.last() {
                Some(Stmt::Expr(last, None)) if is_opaque => self.iterator(last, &mutants),
                _ => self.value(body, &mutants),
            }
        }
        visit(self);
        if !is_opaque {
            self.beside_the_original(body, edits);
        }
        self.is_constant = before;
    }

    /// The function as it was written runs unless one of its mutants is on, so that all others run at full speed.
    fn beside_the_original(&mut self, body: &Block, edits: usize) {
        let numbers = self.sites.edits[edits..].iter().flat_map(|e| &e.numbers);
        let (Some(first), Some(last)) = (numbers.clone().min(), numbers.max()) else {
            return;
        };
        let parts = vec![
            text(format!("{{ if crate::schemata::within({first}, {last}) ")),
            source(body),
            text(" else "),
            Part::Original(range(body)),
            text(" }"),
        ];
        self.sites.edits.push(Edit {
            range: range(body),
            parts,
            numbers: Vec::new(),
        });
    }

    /// The body does not run.
    fn value(&mut self, body: &Block, mutants: &[&Mutant]) {
        let at = body.brace_token.span.open().byte_range().end;
        for mutant in mutants {
            let number = mutant.number;
            let parts = vec![
                text(format!(" if crate::schemata::is({number}) {{ ")),
                Part::Own(number, vec![text(format!("return {};", mutant.replacement))]),
                text(" }"),
            ];
            self.single(at..at, number, parts);
        }
    }

    /// There can be only one type behind `impl Iterator`.
    fn iterator(&mut self, last: &Expr, mutants: &[&Mutant]) {
        let arms = mutants.iter().map(|m| {
            let other = format!("crate::schemata::Either::Other(Box::new({}))", m.replacement);
            (m.number, vec![text(other)])
        });
        let own = vec![text("crate::schemata::Either::Own("), source(last), text(")")];
        self.switch(range(last), arms.collect(), own);
    }

    fn binary(&mut self, binary: &syn::ExprBinary) {
        let mutants = self.take(Genre::BinaryOperator, &binary.op);
        let [first, ..] = mutants.as_slice() else {
            return;
        };
        let number = first.number;
        let (left, right) = (&*binary.left, &*binary.right);
        match binary.op {
            BinOp::And(_) if self.is_chained || binds(left) || binds(right) => {
                self.sites.apart.extend(mutants.iter().map(|m| m.number));
            }
            BinOp::And(_) | BinOp::Or(_) => self.lazy(binary, number),
            // No operand twice, because there are many of these.
            BinOp::Eq(_) | BinOp::Ne(_) => {
                let parts = vec![
                    text("(("),
                    source(binary),
                    text(format!(") ^ crate::schemata::is({number}))")),
                ];
                self.single(range(binary), number, parts);
            }
            _ => {
                let arms = mutants.iter().map(|m| (m.number, between(left, &m.replacement, right)));
                self.switch(range(binary), arms.collect(), vec![source(binary)]);
            }
        }
    }

    /// `&&` and `||`, with no operand twice.
    fn lazy(&mut self, binary: &syn::ExprBinary, number: u32) {
        let (asked, otherwise) = match binary.op {
            BinOp::And(_) => ("!=", ""),
            _ => ("==", "!"),
        };
        let parts = vec![
            text("(if ("),
            source(&binary.left),
            text(format!(") {asked} crate::schemata::is({number}) {{ ")),
            source(&binary.right),
            text(format!(" }} else {{ {otherwise}crate::schemata::is({number}) }})")),
        ];
        self.single(range(binary), number, parts);
    }

    fn arms(&mut self, arms: &[syn::Arm]) {
        // The compiler counts on no arm with a guard. If the last one has one too, the others may have none.
        let catches_all = |arm: &syn::Arm| matches!(arm.pat, syn::Pat::Wild(_)) && arm.guard.is_none();
        let is_caught = arms.iter().any(catches_all);
        for arm in arms {
            let deleted = self.take(Genre::MatchArm, arm);
            if !is_caught {
                self.sites.apart.extend(deleted.iter().map(|m| m.number));
            } else if let Some(deleted) = deleted.first() {
                let (at, number) = (range(&arm.pat).end, deleted.number);
                self.single(
                    at..at,
                    number,
                    vec![text(format!(" if !crate::schemata::is({number})"))],
                );
            }
            let Some((_, guard)) = &arm.guard else {
                continue;
            };
            let mutants = self.take(Genre::MatchArmGuard, guard.as_ref());
            if binds(guard) {
                self.sites.apart.extend(mutants.iter().map(|m| m.number));
                continue;
            }
            let arms = mutants.iter().map(|m| (m.number, vec![text(&m.replacement)]));
            self.switch(range(guard.as_ref()), arms.collect(), vec![source(guard.as_ref())]);
        }
    }

    /// The whole expression without the field, since a base may be moved from.
    fn fields(&mut self, expr: &syn::ExprStruct) {
        let mut arms = Vec::new();
        for field in &expr.fields {
            if let Some(deleted) = self.take(Genre::StructField, field).first() {
                let whole = range(expr);
                let comma = expr.fields.pairs().find(|p| std::ptr::eq(*p.value(), field));
                let end = comma
                    .and_then(|p| p.punct().map(|c| range(c).end))
                    .unwrap_or(range(field).end);
                let parts = vec![
                    Part::Source(whole.start..range(field).start),
                    Part::Source(end..whole.end),
                ];
                arms.push((deleted.number, parts));
            }
        }
        self.switch(range(expr), arms, vec![source(expr)]);
    }

    /// Visits what the compiler works out.
    fn constant(&mut self, is_constant: bool, visit: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.is_constant, is_constant);
        visit(self);
        self.is_constant = before;
    }

    /// Visits what has these attributes.
    fn compiled(&mut self, attributes: &[syn::Attribute], visit: impl FnOnce(&mut Self)) {
        let before = self.is_compiled;
        self.is_compiled &= cfg::is_compiled(attributes);
        visit(self);
        self.is_compiled = before;
    }

    /// Visits one of several conditions, or what is none.
    fn chained(&mut self, is_chained: bool, visit: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.is_chained, is_chained);
        visit(self);
        self.is_chained = before;
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, i: &'ast syn::Item) {
        self.compiled(cfg::of_item(i), |v| visit::visit_item(v, i));
    }

    fn visit_impl_item(&mut self, i: &'ast syn::ImplItem) {
        self.compiled(cfg::of_impl_item(i), |v| visit::visit_impl_item(v, i));
    }

    fn visit_item_fn(&mut self, i: &'ast syn::ItemFn) {
        self.function(&i.sig, &i.block, |v| visit::visit_item_fn(v, i));
    }

    fn visit_impl_item_fn(&mut self, i: &'ast syn::ImplItemFn) {
        self.function(&i.sig, &i.block, |v| visit::visit_impl_item_fn(v, i));
    }

    fn visit_trait_item_fn(&mut self, i: &'ast syn::TraitItemFn) {
        if let Some(body) = &i.default {
            self.function(&i.sig, body, |v| visit::visit_trait_item_fn(v, i));
        }
    }

    fn visit_item_const(&mut self, i: &'ast syn::ItemConst) {
        self.constant(true, |v| visit::visit_item_const(v, i));
    }

    fn visit_item_static(&mut self, i: &'ast syn::ItemStatic) {
        self.constant(true, |v| visit::visit_item_static(v, i));
    }

    fn visit_impl_item_const(&mut self, i: &'ast syn::ImplItemConst) {
        self.constant(true, |v| visit::visit_impl_item_const(v, i));
    }

    fn visit_type_array(&mut self, i: &'ast syn::TypeArray) {
        self.constant(true, |v| visit::visit_type_array(v, i));
    }

    fn visit_expr_repeat(&mut self, i: &'ast syn::ExprRepeat) {
        self.visit_expr(&i.expr);
        self.constant(true, |v| v.visit_expr(&i.len));
    }

    fn visit_expr_binary(&mut self, i: &'ast syn::ExprBinary) {
        self.binary(i);
        let is_and = |e: &Expr| matches!(e, Expr::Binary(b) if matches!(b.op, BinOp::And(_)));
        let is_chain = matches!(i.op, BinOp::And(_)) && (self.is_chained || binds(&i.left) || binds(&i.right));
        for operand in [&*i.left, &*i.right] {
            self.chained(is_chain && is_and(operand), |v| v.visit_expr(operand));
        }
    }

    fn visit_expr_unary(&mut self, i: &'ast syn::ExprUnary) {
        let mutants = self.take(Genre::UnaryOperator, &i.op);
        let arms = mutants.iter().map(|m| (m.number, vec![source(&i.expr)]));
        self.switch(range(i), arms.collect(), vec![source(i)]);
        visit::visit_expr_unary(self, i);
    }

    fn visit_expr_match(&mut self, i: &'ast syn::ExprMatch) {
        self.arms(&i.arms);
        visit::visit_expr_match(self, i);
    }

    fn visit_expr_struct(&mut self, i: &'ast syn::ExprStruct) {
        self.fields(i);
        visit::visit_expr_struct(self, i);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::{Function, Span};
    use crate::render::render;

    /// A mutant of each `(genre, what is replaced, by what)`, in the order of the numbers.
    fn mutated(source: &str, changes: &[(Genre, &str, &str)]) -> (String, Sites) {
        let place = |at: usize| {
            let line = source[..at].matches('\n').count() + 1;
            let column = source[..at].rfind('\n').map_or(at, |n| at - n - 1) + 1;
            Place { line, column }
        };
        let mutants: Vec<Mutant> = changes
            .iter()
            .zip(1..)
            .map(|((genre, replaced, replacement), number)| {
                let start = source.find(replaced).expect("what is replaced");
                Mutant {
                    name: String::new(),
                    file: String::new(),
                    function: Some(Function {
                        return_type: String::new(),
                    }),
                    genre: *genre,
                    replacement: (*replacement).to_owned(),
                    span: Span {
                        start: place(start),
                        end: place(start + replaced.len()),
                    },
                    number,
                }
            })
            .collect();
        let found = sites(source, mutants.iter()).expect("a source");
        let text = render(source, found.edits.clone()).text;
        assert!(syn::parse_file(&text).is_ok(), "{text}");
        // Without the originals beside them.
        let edits = found.edits.iter().filter(|e| !e.numbers.is_empty());
        let text = render(source, edits.cloned().collect()).text;
        (text.replace("crate::schemata::", ""), found)
    }

    fn one(source: &str, genre: Genre, replaced: &str, replacement: &str) -> String {
        mutated(source, &[(genre, replaced, replacement)]).0
    }

    #[test]
    fn a_function_returns_at_once() {
        let text = one("fn f() -> u8 { g() }", Genre::FnValue, "g()", "0");
        assert_eq!(text, "fn f() -> u8 { if is(1) { return 0; } g() }");
    }

    #[test]
    fn a_function_that_returns_some_iterator_returns_either() {
        let text = one(
            "fn f() -> impl Iterator<Item = u8> { g() }",
            Genre::FnValue,
            "g()",
            "::std::iter::empty()",
        );
        assert_eq!(
            text,
            "fn f() -> impl Iterator<Item = u8> { (match at(1) { 1 => Either::Other(Box::new(::std::iter::empty())), \
             _ => Either::Own(g()) }) }"
        );
    }

    #[test]
    fn equality_is_turned_round_with_no_operand_twice() {
        let text = one("fn f() { a == b }", Genre::BinaryOperator, "==", "!=");
        assert_eq!(text, "fn f() { ((a == b) ^ is(1)) }");
    }

    #[test]
    fn lazy_operators_stay_lazy() {
        let text = one("fn f() { a && b }", Genre::BinaryOperator, "&&", "||");
        assert_eq!(text, "fn f() { (if (a) != is(1) { b } else { is(1) }) }");
        let text = one("fn f() { a || b }", Genre::BinaryOperator, "||", "&&");
        assert_eq!(text, "fn f() { (if (a) == is(1) { b } else { !is(1) }) }");
    }

    #[test]
    fn other_operators_are_chosen_by_number() {
        let changes = [(Genre::BinaryOperator, "<", "=="), (Genre::BinaryOperator, "<", ">")];
        let (text, _) = mutated("fn f() { a < b }", &changes);
        assert_eq!(
            text,
            "fn f() { (match at(1) { 1 => (a) == (b), 2 => (a) > (b), _ => a < b }) }"
        );
        let text = one("fn f() { a += b; }", Genre::BinaryOperator, "+=", "-=");
        assert_eq!(text, "fn f() { (match at(1) { 1 => (a) -= (b), _ => a += b }); }");
        let text = one("fn f() { !a }", Genre::UnaryOperator, "!", "");
        assert_eq!(text, "fn f() { (match at(1) { 1 => a, _ => !a }) }");
    }

    #[test]
    fn an_arm_is_passed_over_and_a_guard_replaced() {
        let text = one(
            "fn f() { match a { 1 | 2 => b, _ => c } }",
            Genre::MatchArm,
            "1 | 2",
            "",
        );
        assert_eq!(text, "fn f() { match a { 1 | 2 if !is(1) => b, _ => c } }");
        let (_, found) = mutated(
            "fn f() { match a { 1 => b, 2 => c, _ if d => e } }",
            &[(Genre::MatchArm, "1 =>", "")],
        );
        assert_eq!(found.apart, [1], "nothing catches all");
        let changes = [(Genre::MatchArmGuard, "!g", "true"), (Genre::UnaryOperator, "!", "")];
        let (text, _) = mutated("fn f() { match a { x if !g => b, _ => c } }", &changes);
        assert_eq!(
            text,
            "fn f() { match a { x if (match at(1) { 1 => true, _ => (match at(2) { 2 => g, _ => !g }) }) => b, _ => c } }"
        );
    }

    #[test]
    fn a_field_comes_from_the_base() {
        let changes = [(Genre::StructField, "x: 1", ""), (Genre::StructField, "y", "")];
        let (text, _) = mutated("fn f() { S { x: 1, y, ..z } }", &changes);
        assert_eq!(
            text,
            "fn f() { (match at(1) { 1 => S {  y, ..z }, 2 => S { x: 1,  ..z }, _ => S { x: 1, y, ..z } }) }"
        );
    }

    #[test]
    fn mutants_within_mutants_compose() {
        let changes = [
            (Genre::FnValue, "!(a + 1 < b)", "true"),
            (Genre::UnaryOperator, "!", ""),
            (Genre::BinaryOperator, "<", ">"),
            (Genre::BinaryOperator, "+", "-"),
            (Genre::BinaryOperator, "&&", "||"),
        ];
        let (text, found) = mutated("fn f() -> bool { !(a + 1 < b) && c }", &changes);
        let sum = "(match at(4) { 4 => (a) - (1), _ => a + 1 })";
        let less = format!("(match at(3) {{ 3 => ({sum}) > (b), _ => {sum} < b }})");
        let not = format!("(match at(2) {{ 2 => ({less}), _ => !({less}) }})");
        let both = format!("(if ({not}) != is(5) {{ c }} else {{ is(5) }})");
        assert_eq!(text, format!("fn f() -> bool {{ if is(1) {{ return true; }} {both} }}"));
        assert!(found.apart.is_empty());
    }

    #[test]
    fn a_function_is_as_it_was_unless_one_of_its_mutants_is_on() {
        let source = "fn f() -> u8 { a == b }";
        let changes = [(Genre::FnValue, "a == b", "0"), (Genre::BinaryOperator, "==", "!=")];
        let (text, found) = mutated(source, &changes);
        let body = text.strip_prefix("fn f() -> u8 ").expect("a body");
        let whole = render(source, found.edits).text.replace("crate::schemata::", "");
        assert_eq!(
            whole,
            format!("fn f() -> u8 {{ if within(1, 2) {body} else {{ a == b }} }}")
        );
    }

    #[test]
    fn what_cannot_be_switched_is_left_apart() {
        let (text, found) = mutated("const A: u8 = 1 + 2;", &[(Genre::BinaryOperator, "+", "-")]);
        assert_eq!((text.as_str(), found.apart), ("const A: u8 = 1 + 2;", vec![1]));
        let (_, found) = mutated("const fn f() -> u8 { 1 }", &[(Genre::FnValue, "1", "0")]);
        assert_eq!(found.apart, [1]);
        let chain = "fn f() { if a && b && let c = d {} }";
        let (_, found) = mutated(
            chain,
            &[
                (Genre::BinaryOperator, "&& b", "||"),
                (Genre::BinaryOperator, "&& let", "||"),
            ],
        );
        assert_eq!(found.apart, [2, 1]);
        let (_, found) = mutated(
            "#[cfg(feature = \"x\")] fn f() -> u8 { 1 }",
            &[(Genre::FnValue, "1", "0")],
        );
        assert_eq!(found.not_compiled, [1]);
        let (_, found) = mutated("fn f() { g() }", &[(Genre::FnValue, "f()", "0")]);
        assert_eq!(found.apart, [1], "it is not where it should be");
    }
}

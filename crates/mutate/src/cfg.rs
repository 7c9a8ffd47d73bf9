//! What is compiled: attributes, read as a build without features reads them.

use syn::{Attribute, ImplItem, Item, Meta, Token, punctuated::Punctuated};

/// Whether a build of the library has what these attributes belong to.
pub fn is_compiled(attributes: &[Attribute]) -> bool {
    let conditions = attributes.iter().filter(|a| a.path().is_ident("cfg"));
    conditions
        .filter_map(|a| a.parse_args::<Meta>().ok())
        .all(|condition| holds(&condition))
}

fn holds(condition: &Meta) -> bool {
    let of = |list: &syn::MetaList| -> Vec<bool> {
        let parsed = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
        parsed.map_or_else(|_| Vec::new(), |all| all.iter().map(holds).collect())
    };
    match condition {
        Meta::List(list) if list.path.is_ident("not") => !of(list).contains(&true),
        Meta::List(list) if list.path.is_ident("all") => !of(list).contains(&false),
        Meta::List(list) if list.path.is_ident("any") => of(list).contains(&true),
        // A word of the target would be asked for here; the core has none.
        _ => false,
    }
}

/// The attributes of an item.
pub fn of_item(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Mod(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Trait(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        _ => &[],
    }
}

/// The attributes of what is in an `impl`.
pub fn of_impl_item(item: &ImplItem) -> &[Attribute] {
    match item {
        ImplItem::Const(i) => &i.attrs,
        ImplItem::Fn(i) => &i.attrs,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_and_tests_are_off() {
        let compiled = |text: &str| is_compiled(of_item(&syn::parse_str(text).expect("an item")));
        assert!(compiled("fn f() {}"));
        assert!(compiled("#[inline] #[cfg(not(feature = \"a\"))] fn f() {}"));
        assert!(!compiled("#[cfg(feature = \"a\")] mod a;"));
        assert!(!compiled("#[cfg(all(test, feature = \"a\"))] mod a {}"));
        assert!(compiled("#[cfg(any(test, not(feature = \"a\")))] mod a {}"));
    }
}

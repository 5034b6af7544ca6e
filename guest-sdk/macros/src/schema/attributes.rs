//! What the attributes of serde say, as far as a schema can say it. What it cannot is an error, and not left out.

use syn::meta::ParseNestedMeta;
use syn::{Attribute, Expr, Lit, LitStr, Meta, Result, Token};

/// What stands on a type.
#[derive(Default)]
pub(super) struct Container {
    pub(super) deny_unknown: bool,
    pub(super) default: bool,
    pub(super) untagged: bool,
    pub(super) transparent: bool,
    pub(super) tag: Option<String>,
    /// What serde reads in the place of the type.
    pub(super) from: Option<syn::Type>,
    pub(super) rename_all: Rename,
}

impl Container {
    pub(super) fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut container = Self::default();
        serde(attributes, |meta| {
            match name(meta).as_str() {
                "deny_unknown_fields" => container.deny_unknown = true,
                "default" => container.default = any(meta)?,
                "untagged" => container.untagged = true,
                "from" | "try_from" => container.from = Some(syn::parse_str(&text(meta)?)?),
                "tag" => container.tag = Some(text(meta)?),
                "rename_all" => container.rename_all = Rename::read(meta)?,
                "transparent" => container.transparent = true,
                "rename" | "crate" | "bound" | "expecting" | "rename_all_fields" => drop(any(meta)?),
                _ => return Err(unknown(meta)),
            }
            Ok(())
        })?;
        Ok(container)
    }
}

/// What stands on a field.
#[derive(Debug, Default)]
pub(super) struct Field {
    pub(super) default: bool,
    pub(super) skip: bool,
    pub(super) by_function: bool,
    pub(super) aliases: Vec<String>,
    rename: Option<String>,
}

impl Field {
    pub(super) fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut field = Self::default();
        serde(attributes, |meta| field.take(meta))?;
        Ok(field)
    }

    fn take(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        match name(meta).as_str() {
            "default" => self.default = any(meta)?,
            "skip" | "skip_deserializing" => self.skip = true,
            "with" | "deserialize_with" => self.by_function = any(meta)?,
            "rename" => self.rename = Some(text(meta)?),
            "alias" => self.aliases.push(text(meta)?),
            "skip_serializing" => {}
            "skip_serializing_if" | "serialize_with" | "bound" => drop(any(meta)?),
            _ => return Err(unknown(meta)),
        }
        Ok(())
    }

    /// The name in a file.
    pub(super) fn name(&self, ident: &str, all: Rename) -> String {
        let ident = ident.strip_prefix("r#").unwrap_or(ident);
        self.rename.clone().unwrap_or_else(|| all.apply(ident))
    }
}

/// What stands on a variant.
#[derive(Debug, Default)]
pub(super) struct VariantAttributes {
    pub(super) skip: bool,
    pub(super) rename_all: Rename,
    pub(super) field: Field,
}

impl VariantAttributes {
    pub(super) fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut variant = Self::default();
        serde(attributes, |meta| {
            match name(meta).as_str() {
                "rename_all" => variant.rename_all = Rename::read(meta)?,
                _ => variant.field.take(meta)?,
            }
            Ok(())
        })?;
        variant.skip = variant.field.skip;
        Ok(variant)
    }
}

/// How names are written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rename {
    #[default]
    AsItIs,
    Lower,
    Upper,
    Pascal,
    Camel,
    Snake,
    ScreamingSnake,
    Kebab,
    ScreamingKebab,
    /// Of variants, which are written in Pascal case.
    Variants(Case),
}

/// How the names of variants are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Lower,
    Upper,
    Camel,
    Snake,
    ScreamingSnake,
    Kebab,
    ScreamingKebab,
}

impl Rename {
    fn read(meta: &ParseNestedMeta<'_>) -> Result<Self> {
        let text: LitStr = meta.value()?.parse()?;
        Ok(match text.value().as_str() {
            "lowercase" => Self::Lower,
            "UPPERCASE" => Self::Upper,
            "PascalCase" => Self::Pascal,
            "camelCase" => Self::Camel,
            "snake_case" => Self::Snake,
            "SCREAMING_SNAKE_CASE" => Self::ScreamingSnake,
            "kebab-case" => Self::Kebab,
            "SCREAMING-KEBAB-CASE" => Self::ScreamingKebab,
            _ => return Err(syn::Error::new(text.span(), "serde knows no such case")),
        })
    }

    pub(super) fn of_variants(self) -> Self {
        match self {
            Self::Lower => Self::Variants(Case::Lower),
            Self::Upper => Self::Variants(Case::Upper),
            Self::Camel => Self::Variants(Case::Camel),
            Self::Snake => Self::Variants(Case::Snake),
            Self::ScreamingSnake => Self::Variants(Case::ScreamingSnake),
            Self::Kebab => Self::Variants(Case::Kebab),
            Self::ScreamingKebab => Self::Variants(Case::ScreamingKebab),
            Self::AsItIs | Self::Pascal | Self::Variants(_) => Self::AsItIs,
        }
    }

    /// The name, of a field in snake case or of a variant in Pascal case.
    fn apply(self, ident: &str) -> String {
        let words = || ident.split('_').filter(|word| !word.is_empty());
        let pascal = || words().map(capital).collect::<String>();
        match self {
            Self::AsItIs | Self::Lower | Self::Snake => ident.to_owned(),
            Self::Upper | Self::ScreamingSnake => ident.to_ascii_uppercase(),
            Self::Pascal => pascal(),
            Self::Camel => small(&pascal()),
            Self::Kebab => ident.replace('_', "-"),
            Self::ScreamingKebab => ident.to_ascii_uppercase().replace('_', "-"),
            Self::Variants(case) => match case {
                Case::Lower => ident.to_ascii_lowercase(),
                Case::Upper => ident.to_ascii_uppercase(),
                Case::Camel => small(ident),
                Case::Snake => snake(ident),
                Case::ScreamingSnake => snake(ident).to_ascii_uppercase(),
                Case::Kebab => snake(ident).replace('_', "-"),
                Case::ScreamingKebab => snake(ident).to_ascii_uppercase().replace('_', "-"),
            },
        }
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

fn small(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}

fn snake(ident: &str) -> String {
    let mut name = String::new();
    for (place, letter) in ident.chars().enumerate() {
        if place > 0 && letter.is_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// Shows `take` every word of `#[serde(...)]`.
fn serde(attributes: &[Attribute], mut take: impl FnMut(&ParseNestedMeta<'_>) -> Result<()>) -> Result<()> {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        attribute.parse_nested_meta(|meta| take(&meta))?;
    }
    Ok(())
}

fn name(meta: &ParseNestedMeta<'_>) -> String {
    meta.path.get_ident().map(ToString::to_string).unwrap_or_default()
}

fn unknown(meta: &ParseNestedMeta<'_>) -> syn::Error {
    let name = name(meta);
    meta.error(format!(
        "a schema cannot say what `{name}` does; write `impl Schema` by hand, or leave it out"
    ))
}

fn text(meta: &ParseNestedMeta<'_>) -> Result<String> {
    let text: LitStr = meta.value()?.parse()?;
    Ok(text.value())
}

/// Passes over a value, if there is one.
fn any(meta: &ParseNestedMeta<'_>) -> Result<bool> {
    if meta.input.peek(Token![=]) {
        let _: Expr = meta.value()?.parse()?;
    }
    Ok(true)
}

/// The documentation, as one paragraph.
pub(super) fn documentation(attributes: &[Attribute]) -> String {
    let lines =
        attributes.iter().filter(|attribute| attribute.path().is_ident("doc")).filter_map(|attribute| {
            let Meta::NameValue(doc) = &attribute.meta else { return None };
            let Expr::Lit(literal) = &doc.value else { return None };
            let Lit::Str(line) = &literal.lit else { return None };
            Some(line.value().trim().to_owned())
        });
    lines.collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// A text of JSON.
pub(crate) fn json(text: &str) -> String {
    let mut out = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

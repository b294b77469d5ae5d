//! The offsets in docs/format.md equal those of the structures in the code.
//!
//! A structure is drawn under a heading `### Name (N bytes)` as a table whose rows start with
//! offset, size and field. The code has a `struct Name` of little-endian fields in that order.

use super::Finding;
use crate::source::{self, Source};
use anyhow::Result;
use std::collections::BTreeMap;

const DOCUMENT: &str = "docs/format.md";

/// One row of a table: where a field lies, how long it is, and its name.
type Field = (usize, usize, String);

/// Compares every drawn structure with the code.
pub(super) fn check(sources: &[Source]) -> Result<Vec<Finding>> {
    let drawn = drawn(&source::document(DOCUMENT)?);
    let mut coded = BTreeMap::new();
    for source in sources.iter().filter(|source| source.path.starts_with("crates/udax-fs/src")) {
        coded.extend(source.syntax.items.iter().filter_map(coded_structure));
    }
    let mut findings: Vec<Finding> =
        drawn.iter().flat_map(|(name, table)| differences(name, table, coded.get(name))).collect();
    let missing = coded.keys().filter(|name| !drawn.contains_key(*name));
    findings.extend(missing.map(|name| Finding::new(DOCUMENT, 0, format!("{name} is not drawn"))));
    Ok(findings)
}

struct Table {
    line: usize,
    bytes: usize,
    fields: Vec<Field>,
}

fn drawn(document: &str) -> BTreeMap<String, Table> {
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    let mut current = None;
    for (n, line) in document.lines().enumerate() {
        if line.starts_with('#') {
            current = heading(line);
            if let Some((name, bytes)) = &current {
                let table = Table { line: n + 1, bytes: *bytes, fields: Vec::new() };
                tables.insert(name.clone(), table);
            }
        } else if let Some((name, _)) = &current
            && let Some(field) = row(line)
        {
            tables.get_mut(name).expect("inserted at its heading").fields.push(field);
        }
    }
    tables
}

/// `### Name (N bytes)`.
fn heading(line: &str) -> Option<(String, usize)> {
    let (name, rest) = line.strip_prefix("### ")?.split_once(" (")?;
    let bytes = rest.strip_suffix(" bytes)")?.parse().ok()?;
    Some((name.trim_matches('`').to_owned(), bytes))
}

/// `| offset | size | name | ...`.
fn row(line: &str) -> Option<Field> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let offset = cells.next()?.parse().ok()?;
    let size = cells.next()?.parse().ok()?;
    Some((offset, size, cells.next()?.trim_matches('`').to_owned()))
}

/// The fields of a structure that lies on the medium, which is one that derives `FromBytes`.
fn coded_structure(item: &syn::Item) -> Option<(String, Vec<Field>)> {
    let syn::Item::Struct(item) = item else { return None };
    let derives = item.attrs.iter().any(|attribute| {
        attribute.path().is_ident("derive")
            && attribute.meta.require_list().is_ok_and(|list| {
                list.tokens.clone().into_iter().any(|token| token.to_string() == "FromBytes")
            })
    });
    if !derives || !matches!(item.fields, syn::Fields::Named(_)) {
        return None;
    }
    let mut offset = 0;
    let mut fields = Vec::new();
    for field in &item.fields {
        let size = size_of(&field.ty)?;
        fields.push((offset, size, field.ident.as_ref()?.to_string()));
        offset += size;
    }
    Some((item.ident.to_string(), fields))
}

/// The bytes of a field's type; none for a type that is no part of a format.
fn size_of(ty: &syn::Type) -> Option<usize> {
    match ty {
        syn::Type::Path(path) => match path.path.segments.last()?.ident.to_string().as_str() {
            "u8" | "i8" => Some(1),
            "U16" | "I16" => Some(2),
            "U32" | "I32" => Some(4),
            "U64" | "I64" => Some(8),
            "U128" | "I128" => Some(16),
            _ => None,
        },
        syn::Type::Array(array) => {
            let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(length), .. }) = &array.len else {
                return None;
            };
            Some(size_of(&array.elem)? * length.base10_parse::<usize>().ok()?)
        }
        _ => None,
    }
}

fn differences(name: &str, table: &Table, coded: Option<&Vec<Field>>) -> Vec<Finding> {
    let Some(coded) = coded else {
        return vec![Finding::new(DOCUMENT, table.line, format!("the code has no struct {name}"))];
    };
    let mut findings: Vec<Finding> = coded
        .iter()
        .filter(|field| !table.fields.contains(field))
        .map(|(offset, size, field)| {
            let message = format!("{name}.{field} lies at {offset}, {size} bytes, in the code");
            Finding::new(DOCUMENT, table.line, message)
        })
        .collect();
    let bytes = coded.last().map_or(0, |(offset, size, _)| offset + size);
    if bytes != table.bytes {
        let message = format!("{name} has {bytes} bytes in the code, {} here", table.bytes);
        findings.push(Finding::new(DOCUMENT, table.line, message));
    }
    if table.fields.len() != coded.len() {
        findings.push(Finding::new(DOCUMENT, table.line, format!("{name}: fields too many")));
    }
    findings
}

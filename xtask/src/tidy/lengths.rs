//! How long a function, a file and a line may be, and how a file begins.

use super::Finding;
use crate::source::Source;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

const FUNCTION_LINES: usize = 70;
const FILE_LINES: usize = 600;

/// Measures every file and function.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    sources.iter().flat_map(in_file).collect()
}

fn in_file(source: &Source) -> Vec<Finding> {
    let mut functions = Functions { source, findings: Vec::new() };
    functions.visit_file(&source.syntax);
    let mut findings = functions.findings;
    let lines = source.text.lines().count();
    if lines > FILE_LINES {
        findings.push(Finding::new(
            &source.path,
            0,
            format!("{lines} lines; a file has at most {FILE_LINES}"),
        ));
    }
    // What examples include is no module, and cannot have a document of its own.
    let opening =
        if source.path.components().any(|part| part.as_os_str() == "doc") { "//" } else { "//!" };
    if !source.text.starts_with(opening) {
        findings.push(Finding::new(&source.path, 1, "a file opens with what it owns (`//!`)"));
    }
    findings
}

struct Functions<'a> {
    source: &'a Source,
    findings: Vec<Finding>,
}

impl Functions<'_> {
    fn measure(&mut self, name: &syn::Ident, block: &syn::Block) {
        let (first, last) = (block.span().start().line, block.span().end().line);
        let lines = last - first + 1;
        if lines > FUNCTION_LINES {
            let message =
                format!("`{name}` has {lines} lines; a function has at most {FUNCTION_LINES}");
            self.findings.push(Finding::new(&self.source.path, first, message));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.measure(&item.sig.ident, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.measure(&item.sig.ident, &item.block);
        visit::visit_impl_item_fn(self, item);
    }
}

//! The modules of each crate: what they import, and what they offer to others.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use super::source::Source;

/// One file of a crate, read as Rust. What stands under `#[cfg(test)]` is left out.
pub(crate) struct Module {
    /// Path of the file from the project's root.
    pub(crate) file: String,
    /// Its name within the crate: `gateway::exchange`, empty for the root.
    name: String,
    imports: Vec<Import>,
    /// Types and traits that other files can see.
    pub(crate) types: Vec<Item>,
    /// Everything that other files can see: types, functions, methods, constants.
    pub(crate) items: Vec<Item>,
    /// How often each word stands in it.
    pub(crate) words: BTreeMap<String, usize>,
}

/// A named item and the line of its name.
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) line: usize,
}

/// A path that begins with `crate`, `self` or `super`.
struct Import {
    segments: Vec<String>,
    line: usize,
}

/// An import of one module by another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    pub(crate) to: String,
    pub(crate) line: usize,
}

/// The product modules of a crate, by the folder of its sources.
pub(crate) fn modules(folder: &str, sources: &[Source]) -> Vec<Module> {
    let product = sources
        .iter()
        .filter(|source| !source.is_test && source.path.starts_with(folder));
    product.map(|source| module(folder, source)).collect()
}

fn module(folder: &str, source: &Source) -> Module {
    let file =
        syn::parse_file(&source.text).unwrap_or_else(|error| panic!("{}: {error}", source.path));
    let path = source.path[folder.len()..].trim_end_matches(".rs");
    let is_folder = ["mod", "lib", "main"]
        .iter()
        .any(|name| path == *name || path.ends_with(&format!("/{name}")));
    let name = match path.rsplit_once('/') {
        Some((parent, _)) if is_folder => parent,
        None if is_folder => "",
        _ => path,
    };
    let mut module = Module {
        file: source.path.clone(),
        name: name.replace('/', "::"),
        imports: Vec::new(),
        types: Vec::new(),
        items: Vec::new(),
        words: BTreeMap::new(),
    };
    module.visit_file(&file);
    module
}

impl Module {
    /// The imported modules, each named by the innermost one that is a file. Those of the module's
    /// own children are left out: a parent may use what it is made of.
    pub(crate) fn edges(&self, all: &BTreeSet<&str>) -> Vec<Edge> {
        let mut edges: Vec<Edge> = self
            .imports
            .iter()
            .filter_map(|import| {
                let to = self.resolve(import, all)?;
                let is_own = to == self.name || is_within(&to, &self.name);
                (!is_own).then_some(Edge {
                    to,
                    line: import.line,
                })
            })
            .collect();
        edges.sort();
        edges.dedup();
        edges
    }

    fn resolve(&self, import: &Import, all: &BTreeSet<&str>) -> Option<String> {
        let mut at: Vec<&str> = self
            .name
            .split("::")
            .filter(|part| !part.is_empty())
            .collect();
        let mut rest = import.segments.iter().map(String::as_str).peekable();
        match rest.next()? {
            "crate" => at.clear(),
            "super" => {
                at.pop();
            }
            _ => {}
        }
        while rest.next_if_eq(&"super").is_some() {
            at.pop();
        }
        let mut best = Some(at.join("::")).filter(|name| all.contains(name.as_str()));
        for part in rest {
            at.push(part);
            let name = at.join("::");
            if all.contains(name.as_str()) {
                best = Some(name);
            }
        }
        best
    }

    /// The module's name; `crate` for the root.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn offer(&mut self, visibility: &syn::Visibility, name: &syn::Ident) -> bool {
        let is_offered = !matches!(visibility, syn::Visibility::Inherited);
        if is_offered {
            self.items.push(item(name));
        }
        is_offered
    }

    fn offer_type(&mut self, visibility: &syn::Visibility, name: &syn::Ident) {
        if self.offer(visibility, name) {
            self.types.push(item(name));
        }
    }

    fn count_words(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Ident(word) => *self.words.entry(word.to_string()).or_default() += 1,
                TokenTree::Group(group) => self.count_words(group.stream()),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    fn import_tree(&mut self, tree: &syn::UseTree, above: &[String], line: usize) {
        let with = |name: &syn::Ident| [above, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.import_tree(&path.tree, &with(&path.ident), line),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.import_tree(tree, above, line);
                }
            }
            syn::UseTree::Name(name) => self.import(with(&name.ident), line),
            syn::UseTree::Rename(name) => self.import(with(&name.ident), line),
            syn::UseTree::Glob(_) => self.import(above.to_vec(), line),
        }
    }

    fn import(&mut self, segments: Vec<String>, line: usize) {
        let first = segments.first().map(String::as_str);
        if matches!(first, Some("crate" | "self" | "super")) {
            self.imports.push(Import { segments, line });
        }
    }
}

impl<'ast> Visit<'ast> for Module {
    fn visit_file(&mut self, file: &'ast syn::File) {
        for item in &file.items {
            self.visit_item(item);
        }
    }

    fn visit_item(&mut self, item: &'ast syn::Item) {
        if attributes(item).iter().any(is_test) {
            return;
        }
        // An inline module has paths of its own, but no file: its text is part of this one.
        if !matches!(item, syn::Item::Mod(inner) if inner.content.is_some()) {
            self.count_words(item.to_token_stream());
        }
        visit::visit_item(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import_tree(&item.tree, &[], line(item.span()));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|part| part.ident.to_string());
        let segments: Vec<String> = segments.collect();
        if segments.len() > 1 {
            self.import(segments, line(path.span()));
        }
        visit::visit_path(self, path);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.offer_type(&item.vis, &item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.offer_type(&item.vis, &item.ident);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.offer_type(&item.vis, &item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.offer_type(&item.vis, &item.ident);
        visit::visit_item_type(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.offer(&item.vis, &item.sig.ident);
        visit::visit_item_fn(self, item);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.offer(&item.vis, &item.ident);
        visit::visit_item_const(self, item);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.offer(&item.vis, &item.ident);
        visit::visit_item_static(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !item.attrs.iter().any(is_test) {
            self.offer(&item.vis, &item.sig.ident);
            visit::visit_impl_item_fn(self, item);
        }
    }
}

fn item(name: &syn::Ident) -> Item {
    Item {
        name: name.to_string(),
        line: line(name.span()),
    }
}

fn line(span: Span) -> usize {
    span.start().line
}

fn is_test(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && matches!(&attribute.meta, syn::Meta::List(list) if list.tokens.to_string() == "test")
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_within(name: &str, parent: &str) -> bool {
    parent.is_empty()
        || name
            .strip_prefix(parent)
            .is_some_and(|rest| rest.starts_with("::"))
}

/// Groups of modules each of which reaches all others of its group.
pub(crate) fn circles(modules: &[Module]) -> Vec<Vec<String>> {
    let names: BTreeSet<&str> = modules.iter().map(Module::name).collect();
    let reached: BTreeMap<&str, BTreeSet<String>> = modules
        .iter()
        .map(|module| (module.name(), reach(module.name(), modules, &names)))
        .collect();
    let mut circles = BTreeSet::new();
    for (name, others) in &reached {
        let back = |other: &&String| reached[other.as_str()].contains(*name);
        let group: Vec<String> = others.iter().filter(back).cloned().collect();
        if !group.is_empty() {
            circles.insert(group);
        }
    }
    circles.into_iter().collect()
}

/// Every module that can be reached from one over imports.
fn reach(from: &str, modules: &[Module], names: &BTreeSet<&str>) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut next = vec![from.to_owned()];
    while let Some(name) = next.pop() {
        for module in modules.iter().filter(|module| module.name == name) {
            for edge in module.edges(names) {
                if reached.insert(edge.to.clone()) {
                    next.push(edge.to);
                }
            }
        }
    }
    reached
}

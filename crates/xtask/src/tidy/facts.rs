//! What the rules want to know about a Rust file, gathered in one walk over its syntax.

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Block, Expr, ExprCall, ExprMethodCall, ImplItemFn, ItemFn, ItemImpl, ItemMod,
    ItemUse, Lit, LitStr, Macro, Path, TraitItemFn, UseTree,
    visit::{self, Visit},
};

/// Whether a place is compiled into the program or only into its tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Production,
    Test,
}

/// An import that ends in a star.
#[derive(Debug)]
pub(super) struct Glob {
    pub(super) line: usize,
    pub(super) from: String,
    pub(super) role: Role,
}

/// A function with its length in lines, signature and braces included.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) lines: usize,
}

/// Everything the rules look at. Strings and statuses are those of production code.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) globs: Vec<Glob>,
    pub(super) strings: Vec<(usize, String)>,
    pub(super) statuses: Vec<(usize, String)>,
    pub(super) functions: Vec<Function>,
    /// Names of the functions that only tests compile, those written inside macros included.
    pub(super) test_functions: Vec<String>,
    /// Lines inside this file that only tests compile.
    pub(super) test_lines: usize,
    /// Modules in files of their own that only tests compile.
    pub(super) test_modules: Vec<String>,
}

/// Gathers the facts of one file.
pub(super) fn gather(text: &str, role: Role) -> syn::Result<Facts> {
    let file = syn::parse_file(text)?;
    let mut walk = Walk {
        facts: Facts::default(),
        role,
    };
    walk.visit_file(&file);
    Ok(walk.facts)
}

struct Walk {
    facts: Facts,
    role: Role,
}

impl Walk {
    /// Walks into an item, as test code if its attributes say that only tests compile it.
    fn enter(&mut self, attributes: &[Attribute], lines: (usize, usize), walk: impl Fn(&mut Self)) {
        let outer = self.role;
        if outer == Role::Production && attributes.iter().any(for_tests_only) {
            self.role = Role::Test;
            let first = attributes
                .first()
                .map_or(lines.0, |a| a.pound_token.span.start().line);
            self.facts.test_lines += lines.1 + 1 - first;
        }
        walk(self);
        self.role = outer;
    }

    fn function(&mut self, name: &syn::Ident, start: usize, block: &Block) {
        let name = name.to_string();
        match self.role {
            Role::Production => {
                let lines = end_of(block) + 1 - start;
                let function = Function {
                    name,
                    line: start,
                    lines,
                };
                self.facts.functions.push(function);
            }
            Role::Test => self.facts.test_functions.push(name),
        }
    }

    fn string(&mut self, line: usize, value: String) {
        if self.role == Role::Production {
            self.facts.strings.push((line, value));
        }
    }

    fn status(&mut self, line: usize, shown: String) {
        if self.role == Role::Production {
            self.facts.statuses.push((line, shown));
        }
    }

    /// Inside a macro call there is no syntax to visit, but its words are still there.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut last = [const { String::new() }; 3];
        for token in tokens {
            let line = token.span().start().line;
            let shown = token.to_string();
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Literal(_) => {
                    if let Ok(Lit::Str(text)) = syn::parse_str::<Lit>(&shown) {
                        self.string(line, text.value());
                    }
                }
                TokenTree::Ident(_) if last == ["StatusCode", ":", ":"] => {
                    self.status(line, shown.clone());
                }
                TokenTree::Ident(_) if self.role == Role::Test && last[2] == "fn" => {
                    self.facts.test_functions.push(shown.clone());
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
            last.rotate_left(1);
            last[2] = shown;
        }
    }
}

impl<'ast> Visit<'ast> for Walk {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let start = item.mod_token.span.start().line;
        let Some((brace, _)) = &item.content else {
            if item.attrs.iter().any(for_tests_only) {
                self.facts.test_modules.push(item.ident.to_string());
            }
            return;
        };
        let end = brace.span.close().end().line;
        self.enter(&item.attrs, (start, end), |walk| {
            visit::visit_item_mod(walk, item)
        });
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        let start = item.sig.fn_token.span.start().line;
        self.enter(&item.attrs, (start, end_of(&item.block)), |walk| {
            walk.function(&item.sig.ident, start, &item.block);
            visit::visit_item_fn(walk, item);
        });
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        let start = item.impl_token.span.start().line;
        let end = item.brace_token.span.close().end().line;
        self.enter(&item.attrs, (start, end), |walk| {
            visit::visit_item_impl(walk, item)
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        let start = item.sig.fn_token.span.start().line;
        self.enter(&item.attrs, (start, end_of(&item.block)), |walk| {
            walk.function(&item.sig.ident, start, &item.block);
            visit::visit_impl_item_fn(walk, item);
        });
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig.ident, item.sig.fn_token.span.start().line, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let line = item.use_token.span.start().line;
        let role = if item.attrs.iter().any(for_tests_only) {
            Role::Test
        } else {
            self.role
        };
        let mut from = Vec::new();
        globs(&item.tree, String::new(), &mut from);
        self.facts
            .globs
            .extend(from.into_iter().map(|from| Glob { line, from, role }));
    }

    fn visit_expr_call(&mut self, call: &'ast ExprCall) {
        if let Expr::Path(function) = &*call.func
            && ends_in(&function.path, ["StatusCode", "from_u16"])
            && let Some((line, status)) = call.args.first().and_then(integer)
        {
            self.status(line, status);
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        if call.method == "status"
            && let Some((line, status)) = call.args.first().and_then(integer)
        {
            self.status(line, status);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| &segment.ident).collect();
        if let [.., owner, name] = names.as_slice()
            && *owner == "StatusCode"
        {
            self.status(name.span().start().line, name.to_string());
        }
        visit::visit_path(self, path);
    }

    fn visit_lit_str(&mut self, text: &'ast LitStr) {
        self.string(text.span().start().line, text.value());
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.tokens(call.tokens.clone());
    }

    /// Attributes hold documentation, which may quote anything.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

/// `#[test]`, and any `cfg` that asks for `test` or for the feature `testing` without a `not`.
fn for_tests_only(attribute: &Attribute) -> bool {
    if attribute.path().is_ident("test") {
        return true;
    }
    if !attribute.path().is_ident("cfg") {
        return false;
    }
    let Ok(list) = attribute.meta.require_list() else {
        return false;
    };
    let condition = list.tokens.to_string();
    let mut words = condition.split(|c: char| !c.is_alphanumeric() && c != '_');
    let asks = condition.contains("\"testing\"") || words.clone().any(|word| word == "test");
    asks && !words.any(|word| word == "not")
}

fn end_of(block: &Block) -> usize {
    block.brace_token.span.close().end().line
}

fn ends_in(path: &Path, names: [&str; 2]) -> bool {
    let mut segments = path.segments.iter().rev();
    names
        .iter()
        .rev()
        .all(|name| segments.next().is_some_and(|segment| segment.ident == name))
}

fn integer(expression: &Expr) -> Option<(usize, String)> {
    let Expr::Lit(literal) = expression else {
        return None;
    };
    let Lit::Int(number) = &literal.lit else {
        return None;
    };
    Some((
        number.span().start().line,
        number.base10_digits().to_owned(),
    ))
}

fn globs(tree: &UseTree, prefix: String, found: &mut Vec<String>) {
    let below = |name: &syn::Ident| {
        if prefix.is_empty() {
            name.to_string()
        } else {
            format!("{prefix}::{name}")
        }
    };
    match tree {
        UseTree::Path(path) => globs(&path.tree, below(&path.ident), found),
        UseTree::Group(group) => {
            for tree in &group.items {
                globs(tree, prefix.clone(), found);
            }
        }
        UseTree::Glob(_) => found.push(prefix),
        UseTree::Name(_) | UseTree::Rename(_) => {}
    }
}

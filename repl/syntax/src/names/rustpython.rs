//! The same names by RustPython's parser.
//!
//! A second opinion for the differential test: its grammar ends with Python 3.11, and it is no longer developed.

use rustpython_ast::{
    Alias, Arguments, Comprehension, ExceptHandler, Expr, ExprContext, Identifier, Keyword,
    MatchCase, Pattern, Stmt, Suite, TypeParam, Visitor, WithItem,
};
use rustpython_parser::Parse;

use super::{Found, Names, Scope};
use crate::limits;
use crate::scan::{Kind, Token, scan};

enum Node {
    Statement(Stmt),
    Expression(Expr),
    Handler(ExceptHandler),
    Pattern(Pattern),
}

/// Finds the names that running `source` as a cell can bind or delete; `None` when this parser cannot tell.
pub fn names(source: &str) -> Option<Names> {
    let scan = scan(source);
    // It leaves identifiers as they are written, where Python normalises them.
    let is_plain =
        |token: &Token| token.kind != Kind::Word || source[token.range.clone()].is_ascii();
    if !limits::fit(source, &scan) || !scan.tokens.iter().all(is_plain) {
        return None;
    }
    let text = source.strip_prefix('\u{feff}').unwrap_or(source);
    let suite = Suite::parse(text, "<cell>").ok()?;
    Some(names_of(suite))
}

/// Takes the tree apart while it walks, so that dropping a chain of `elif`, which is deep here, is no recursion.
fn names_of(module: Suite) -> Names {
    let mut found = Found::default();
    let mut children = Children::default();
    children.visit_all(module);
    let mut todo = Vec::new();
    children.move_to(&mut todo, Scope::Top);
    while let Some((node, scope)) = todo.pop() {
        note(&mut found, &node, scope);
        match node {
            Node::Statement(Stmt::FunctionDef(f)) => {
                children.visit_all(f.body);
                children.move_to(&mut todo, found.open_scope());
                children.around_function(f.decorator_list, *f.args, f.returns);
            }
            Node::Statement(Stmt::AsyncFunctionDef(f)) => {
                children.visit_all(f.body);
                children.move_to(&mut todo, found.open_scope());
                children.around_function(f.decorator_list, *f.args, f.returns);
            }
            Node::Statement(Stmt::ClassDef(class)) => {
                children.visit_all(class.body);
                children.move_to(&mut todo, found.open_scope());
                for expression in class.decorator_list.into_iter().chain(class.bases) {
                    children.visit_expr(expression);
                }
                for keyword in class.keywords {
                    children.visit_keyword(keyword);
                }
            }
            Node::Statement(Stmt::TypeAlias(alias)) => children.visit_expr(*alias.name),
            Node::Statement(statement) => children.generic_visit_stmt(statement),
            Node::Expression(Expr::Lambda(lambda)) => children.visit_arguments(*lambda.args),
            Node::Expression(expression) => children.generic_visit_expr(expression),
            Node::Handler(handler) => children.generic_visit_excepthandler(handler),
            Node::Pattern(pattern) => children.generic_visit_pattern(pattern),
        }
        children.move_to(&mut todo, scope);
    }
    found.names
}

fn note(found: &mut Found, node: &Node, scope: Scope) {
    let bind_some = |found: &mut Found, name: Option<&Identifier>| {
        if let Some(name) = name {
            found.bind(name, scope);
        }
    };
    match node {
        Node::Expression(Expr::Name(name)) => match name.ctx {
            ExprContext::Store => found.bind(&name.id, scope),
            ExprContext::Del => found.delete(&name.id, scope),
            ExprContext::Load => {}
        },
        Node::Statement(statement) => note_statement(found, statement, scope),
        Node::Handler(ExceptHandler::ExceptHandler(handler)) => {
            bind_some(found, handler.name.as_ref());
        }
        Node::Pattern(Pattern::MatchAs(pattern)) => bind_some(found, pattern.name.as_ref()),
        Node::Pattern(Pattern::MatchStar(pattern)) => bind_some(found, pattern.name.as_ref()),
        Node::Pattern(Pattern::MatchMapping(pattern)) => bind_some(found, pattern.rest.as_ref()),
        Node::Expression(_) | Node::Pattern(_) => {}
    }
}

fn note_statement(found: &mut Found, statement: &Stmt, scope: Scope) {
    let alias_of = |alias: &Alias| alias.asname.as_ref().map(|name| name.as_str().to_owned());
    match statement {
        Stmt::FunctionDef(function) => found.bind(&function.name, scope),
        Stmt::AsyncFunctionDef(function) => found.bind(&function.name, scope),
        Stmt::ClassDef(class) => found.bind(&class.name, scope),
        Stmt::Global(global) => {
            for name in &global.names {
                found.declare_global(name, scope);
            }
        }
        Stmt::Import(import) => {
            for alias in &import.names {
                found.import(&alias.name, alias_of(alias).as_deref(), scope);
            }
        }
        Stmt::ImportFrom(import) => {
            for alias in &import.names {
                found.import_from(&alias.name, alias_of(alias).as_deref(), scope);
            }
        }
        _ => {}
    }
}

/// Collects the nodes right below one.
#[derive(Default)]
struct Children(Vec<Node>);

impl Children {
    fn move_to(&mut self, todo: &mut Vec<(Node, Scope)>, scope: Scope) {
        todo.extend(self.0.drain(..).rev().map(|node| (node, scope)));
    }

    fn visit_all(&mut self, body: Vec<Stmt>) {
        for statement in body {
            self.visit_stmt(statement);
        }
    }

    fn around_function(
        &mut self,
        decorators: Vec<Expr>,
        arguments: Arguments,
        returns: Option<Box<Expr>>,
    ) {
        for decorator in decorators {
            self.visit_expr(decorator);
        }
        self.visit_arguments(arguments);
        if let Some(returns) = returns {
            self.visit_expr(*returns);
        }
    }
}

/// The visitor's own methods leave out what is no statement, expression or pattern.
impl Visitor for Children {
    fn visit_stmt(&mut self, node: Stmt) {
        self.0.push(Node::Statement(node));
    }

    fn visit_expr(&mut self, node: Expr) {
        self.0.push(Node::Expression(node));
    }

    fn visit_excepthandler(&mut self, node: ExceptHandler) {
        self.0.push(Node::Handler(node));
    }

    fn visit_pattern(&mut self, node: Pattern) {
        self.0.push(Node::Pattern(node));
    }

    /// The target stays inside.
    fn visit_comprehension(&mut self, node: Comprehension) {
        self.visit_expr(node.iter);
        for condition in node.ifs {
            self.visit_expr(condition);
        }
    }

    fn visit_arguments(&mut self, node: Arguments) {
        let single = node
            .vararg
            .into_iter()
            .chain(node.kwarg)
            .map(|argument| *argument);
        let listed = node
            .posonlyargs
            .into_iter()
            .chain(node.args)
            .chain(node.kwonlyargs);
        let mut annotations: Vec<_> = single.map(|argument| argument.annotation).collect();
        for argument in listed {
            annotations.push(argument.default);
            annotations.push(argument.def.annotation);
        }
        for expression in annotations.into_iter().flatten() {
            self.visit_expr(*expression);
        }
    }

    fn visit_keyword(&mut self, node: Keyword) {
        self.visit_expr(node.value);
    }

    fn visit_withitem(&mut self, node: WithItem) {
        self.visit_expr(node.context_expr);
        if let Some(target) = node.optional_vars {
            self.visit_expr(*target);
        }
    }

    fn visit_match_case(&mut self, node: MatchCase) {
        self.visit_pattern(node.pattern);
        if let Some(guard) = node.guard {
            self.visit_expr(*guard);
        }
        self.visit_all(node.body);
    }

    fn visit_type_param(&mut self, _: TypeParam) {}
}

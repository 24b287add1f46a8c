//! The walk over the default parser's tree.

use ruff_python_ast::visitor::{self, Visitor};
use ruff_python_ast::{
    self as ast, Comprehension, ExceptHandler, Expr, ExprContext, Pattern, Stmt, TypeParams,
};

use super::{Found, Names, Scope};

#[derive(Clone, Copy)]
enum Node<'a> {
    Statement(&'a Stmt),
    Expression(&'a Expr),
    Handler(&'a ExceptHandler),
    Pattern(&'a Pattern),
}

/// The names that a module binds or deletes.
pub(super) fn names_of(module: &[Stmt]) -> Names {
    let mut found = Found::default();
    let mut children = Children::default();
    children.visit_body(module);
    // A stack, not recursion. The order in which statements leave it is that of the source.
    let mut todo = Vec::new();
    children.move_to(&mut todo, Scope::Top);
    while let Some((node, scope)) = todo.pop() {
        note(&mut found, node, scope);
        match node {
            Node::Statement(Stmt::FunctionDef(function)) => {
                let inner = found.open_scope();
                children.visit_body(&function.body);
                children.move_to(&mut todo, inner);
                children.around_function(function);
            }
            Node::Statement(Stmt::ClassDef(class)) => {
                let inner = found.open_scope();
                children.visit_body(&class.body);
                children.move_to(&mut todo, inner);
                children.around_class(class);
            }
            Node::Statement(Stmt::TypeAlias(alias)) => children.visit_expr(&alias.name),
            Node::Statement(statement) => visitor::walk_stmt(&mut children, statement),
            Node::Expression(Expr::Lambda(lambda)) => {
                if let Some(parameters) = &lambda.parameters {
                    children.visit_parameters(parameters);
                }
            }
            Node::Expression(expression) => visitor::walk_expr(&mut children, expression),
            Node::Handler(handler) => visitor::walk_except_handler(&mut children, handler),
            Node::Pattern(pattern) => visitor::walk_pattern(&mut children, pattern),
        }
        children.move_to(&mut todo, scope);
    }
    found.names
}

/// What a node itself binds or deletes.
fn note(found: &mut Found, node: Node, scope: Scope) {
    match node {
        Node::Expression(Expr::Name(name)) => match name.ctx {
            ExprContext::Store => found.bind(&name.id, scope),
            ExprContext::Del => found.delete(&name.id, scope),
            ExprContext::Load | ExprContext::Invalid => {}
        },
        Node::Statement(statement) => note_statement(found, statement, scope),
        Node::Handler(ExceptHandler::ExceptHandler(handler)) => {
            bind_some(found, handler.name.as_ref(), scope);
        }
        Node::Pattern(Pattern::MatchAs(pattern)) => bind_some(found, pattern.name.as_ref(), scope),
        Node::Pattern(Pattern::MatchStar(pattern)) => {
            bind_some(found, pattern.name.as_ref(), scope);
        }
        Node::Pattern(Pattern::MatchMapping(pattern)) => {
            bind_some(found, pattern.rest.as_ref(), scope);
        }
        Node::Expression(_) | Node::Pattern(_) => {}
    }
}

fn note_statement(found: &mut Found, statement: &Stmt, scope: Scope) {
    match statement {
        Stmt::FunctionDef(function) => found.bind(&function.name, scope),
        Stmt::ClassDef(class) => found.bind(&class.name, scope),
        Stmt::Global(global) => {
            for name in &global.names {
                found.declare_global(name, scope);
            }
        }
        Stmt::Import(import) => {
            for alias in &import.names {
                found.import(&alias.name, alias.asname.as_deref(), scope);
            }
        }
        Stmt::ImportFrom(import) => {
            for alias in &import.names {
                found.import_from(&alias.name, alias.asname.as_deref(), scope);
            }
        }
        _ => {}
    }
}

fn bind_some(found: &mut Found, name: Option<&ast::Identifier>, scope: Scope) {
    if let Some(name) = name {
        found.bind(name, scope);
    }
}

/// Collects the nodes right below one.
#[derive(Default)]
struct Children<'a>(Vec<Node<'a>>);

impl<'a> Children<'a> {
    fn move_to(&mut self, todo: &mut Vec<(Node<'a>, Scope)>, scope: Scope) {
        todo.extend(self.0.drain(..).rev().map(|node| (node, scope)));
    }

    /// Decorators, defaults and annotations are evaluated around the function, its body inside it.
    fn around_function(&mut self, function: &'a ast::StmtFunctionDef) {
        for decorator in &function.decorator_list {
            self.visit_decorator(decorator);
        }
        self.visit_parameters(&function.parameters);
        if let Some(returns) = &function.returns {
            self.visit_annotation(returns);
        }
    }

    fn around_class(&mut self, class: &'a ast::StmtClassDef) {
        for decorator in &class.decorator_list {
            self.visit_decorator(decorator);
        }
        if let Some(arguments) = &class.arguments {
            self.visit_arguments(arguments);
        }
    }
}

impl<'a> Visitor<'a> for Children<'a> {
    fn visit_stmt(&mut self, statement: &'a Stmt) {
        self.0.push(Node::Statement(statement));
    }

    fn visit_expr(&mut self, expression: &'a Expr) {
        self.0.push(Node::Expression(expression));
    }

    fn visit_except_handler(&mut self, handler: &'a ExceptHandler) {
        self.0.push(Node::Handler(handler));
    }

    fn visit_pattern(&mut self, pattern: &'a Pattern) {
        self.0.push(Node::Pattern(pattern));
    }

    /// The target stays inside.
    fn visit_comprehension(&mut self, comprehension: &'a Comprehension) {
        self.visit_expr(&comprehension.iter);
        for condition in &comprehension.ifs {
            self.visit_expr(condition);
        }
    }

    fn visit_type_params(&mut self, _: &'a TypeParams) {}
}

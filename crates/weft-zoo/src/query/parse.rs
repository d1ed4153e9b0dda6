//! The parser of expressions: recursive descent, one function a rule, with bounds on length, depth and size.

use super::{Comparison, Expr, Literal, Name};
use crate::{Error, Result};

/// The longest expression, in bytes.
const MAX_LEN: usize = 16 << 10;
/// How deep parentheses and `not` may nest.
const MAX_DEPTH: usize = 48;
/// How many tests an expression may have; SQLite refuses trees that are 1,000 deep.
const MAX_TESTS: usize = 256;
/// How many values a list may have.
const MAX_VALUES: usize = 1_000;
/// The longest pattern of `like`, and how many `%` it may hold: matching takes time exponential in them.
const MAX_PATTERN: (usize, usize) = (256, 8);

const KEYWORDS: [&str; 11] = ["and", "or", "not", "in", "like", "is", "known", "unknown", "true", "false", "null"];

/// Whether a name needs no backticks.
pub(super) fn is_bare(text: &str) -> bool {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && text.chars().all(is_word) && !KEYWORDS.contains(&text.to_ascii_lowercase().as_str())
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

pub(super) fn parse(text: &str) -> Result<Expr> {
    if text.len() > MAX_LEN {
        let reason = format!("the expression has {} bytes, at most {MAX_LEN} are read", text.len());
        return Err(Error::Query { column: 1, reason });
    }
    let tokens = tokens(text)?;
    let end = text.chars().count() + 1;
    let mut parser = Parser { tokens, at: 0, end, depth: 0, tests: 0 };
    let expr = parser.any()?;
    match parser.peek() {
        None => Ok(expr),
        Some(_) => Err(parser.fail("expected `and`, `or` or the end")),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    Text(String),
    Number(f64),
    Symbol(&'static str),
}

/// Splits a text into tokens with the columns where they begin.
fn tokens(text: &str) -> Result<Vec<(usize, Token)>> {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(&c) = chars.get(at) {
        let column = at + 1;
        let fail = |reason: &str| Error::Query { column, reason: reason.to_owned() };
        let token = match c {
            c if c.is_whitespace() => {
                at += 1;
                continue;
            }
            '"' | '\'' => Token::Text(enclosed(&chars, &mut at).ok_or_else(|| fail("this text has no closing quote"))?),
            '`' => Token::Quoted(enclosed(&chars, &mut at).ok_or_else(|| fail("this name has no closing backtick"))?),
            c if c.is_ascii_digit() || (c == '-' && chars.get(at + 1).is_some_and(char::is_ascii_digit)) => {
                let word = take(&chars, &mut at, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'));
                let number = word.parse::<f64>().ok().filter(|number| number.is_finite());
                Token::Number(number.ok_or_else(|| fail("this is not a number"))?)
            }
            c if c.is_ascii_alphabetic() || c == '_' => Token::Word(take(&chars, &mut at, is_word)),
            _ => Token::Symbol(symbol(&chars, &mut at).ok_or_else(|| fail(&format!("`{c}` has no meaning here")))?),
        };
        tokens.push((column, token));
    }
    Ok(tokens)
}

fn take(chars: &[char], at: &mut usize, belongs: impl Fn(char) -> bool) -> String {
    let word: String = chars[*at..].iter().copied().take_while(|&c| belongs(c)).collect();
    // Only ASCII belongs to a word.
    *at += word.len();
    word
}

/// What stands between quotes, where a backslash takes the next character as it is, or between backticks, where two
/// stand for one.
fn enclosed(chars: &[char], at: &mut usize) -> Option<String> {
    let quote = chars[*at];
    let mut text = String::new();
    *at += 1;
    loop {
        let c = *chars.get(*at)?;
        *at += 1;
        if c == '\\' && quote != '`' {
            text.push(*chars.get(*at)?);
            *at += 1;
        } else if c != quote {
            text.push(c);
        } else if quote == '`' && chars.get(*at) == Some(&'`') {
            text.push('`');
            *at += 1;
        } else {
            return Some(text);
        }
    }
}

fn symbol(chars: &[char], at: &mut usize) -> Option<&'static str> {
    // Longer ones first; the second of a pair is what it is read as.
    let known = [("==", "="), ("!=", "!="), ("<>", "!="), ("<=", "<="), (">=", ">="), ("=", "="), ("<", "<"), (">", ">")];
    let known = known.into_iter().chain([("(", "("), (")", ")"), (",", ",")]);
    for (written, read) in known {
        if chars[*at..].iter().take(written.len()).copied().eq(written.chars()) {
            *at += written.len();
            return Some(read);
        }
    }
    None
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    /// The column after the last.
    end: usize,
    depth: usize,
    tests: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn column(&self) -> usize {
        self.tokens.get(self.at).map_or(self.end, |(column, _)| *column)
    }

    fn fail(&self, reason: &str) -> Error {
        Error::Query { column: self.column(), reason: reason.to_owned() }
    }

    /// Takes the next token if it is this keyword, in any case.
    fn keyword(&mut self, keyword: &str) -> bool {
        let there = matches!(self.peek(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword));
        self.at += usize::from(there);
        there
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let there = matches!(self.peek(), Some(Token::Symbol(got)) if *got == symbol);
        self.at += usize::from(there);
        there
    }

    fn any(&mut self) -> Result<Expr> {
        let mut terms = vec![self.all()?];
        while self.keyword("or") {
            terms.push(self.all()?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Expr::Any(terms) })
    }

    fn all(&mut self) -> Result<Expr> {
        let mut terms = vec![self.term()?];
        while self.keyword("and") {
            terms.push(self.term()?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Expr::All(terms) })
    }

    fn term(&mut self) -> Result<Expr> {
        if self.depth == MAX_DEPTH {
            return Err(self.fail(&format!("nested more than {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        let term = if self.keyword("not") {
            Expr::Not(Box::new(self.term()?))
        } else if self.symbol("(") {
            let inner = self.any()?;
            if !self.symbol(")") {
                return Err(self.fail("expected `and`, `or` or `)`"));
            }
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(term)
    }

    fn test(&mut self) -> Result<Expr> {
        self.tests += 1;
        if self.tests > MAX_TESTS {
            return Err(self.fail(&format!("more than {MAX_TESTS} tests")));
        }
        let name = self.name()?;
        if let Some(comparison) = Comparison::ALL.into_iter().find(|c| self.symbol(c.symbol())) {
            return Ok(Expr::Compare(name, comparison, self.value()?));
        }
        if self.keyword("is") {
            let negated = self.keyword("not");
            let known = if self.keyword("known") {
                true
            } else if self.keyword("unknown") || self.keyword("null") {
                false
            } else {
                return Err(self.fail("expected `known` or `unknown`"));
            };
            let test = Expr::Known(name);
            return Ok(if known == negated { Expr::Not(Box::new(test)) } else { test });
        }
        let negated = self.keyword("not");
        let test = if self.keyword("in") {
            Expr::In(name, self.values()?)
        } else if self.keyword("like") {
            Expr::Like(name, self.pattern()?)
        } else if negated {
            return Err(self.fail("expected `in` or `like`"));
        } else {
            Expr::Flag(name)
        };
        Ok(if negated { Expr::Not(Box::new(test)) } else { test })
    }

    fn name(&mut self) -> Result<Name> {
        let column = self.column();
        let text = match self.peek() {
            Some(Token::Word(word)) if is_bare(word) => word.clone(),
            Some(Token::Quoted(name)) => name.clone(),
            _ => return Err(self.fail("expected the name of a field, `not` or `(`")),
        };
        self.at += 1;
        Ok(Name { text, column })
    }

    fn value(&mut self) -> Result<Literal> {
        let value = match self.peek() {
            Some(Token::Text(text)) => Literal::Text(text.clone()),
            Some(Token::Number(number)) => Literal::Number(*number),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("true") => Literal::Flag(true),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("false") => Literal::Flag(false),
            Some(Token::Word(word) | Token::Quoted(word)) => {
                return Err(self.fail(&format!("expected a value; a text stands in quotes: \"{word}\"")));
            }
            _ => return Err(self.fail("expected a value: a \"text\", a number, true or false")),
        };
        self.at += 1;
        Ok(value)
    }

    fn values(&mut self) -> Result<Vec<Literal>> {
        if !self.symbol("(") {
            return Err(self.fail("expected `(`"));
        }
        let mut values = vec![self.value()?];
        while self.symbol(",") {
            values.push(self.value()?);
        }
        if values.len() > MAX_VALUES {
            return Err(self.fail(&format!("more than {MAX_VALUES} values")));
        }
        if self.symbol(")") { Ok(values) } else { Err(self.fail("expected `,` or `)`")) }
    }

    fn pattern(&mut self) -> Result<String> {
        let (longest, most) = MAX_PATTERN;
        match self.peek() {
            Some(Token::Text(text)) if text.len() > longest || text.matches('%').count() > most => {
                Err(self.fail(&format!("a pattern has at most {longest} bytes and {most} `%`")))
            }
            Some(Token::Text(text)) => {
                let text = text.clone();
                self.at += 1;
                Ok(text)
            }
            _ => Err(self.fail("expected a pattern such as \"hey%\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_read_as_meant() {
        let check = |text: &str, expected: &str| assert_eq!(parse(text).unwrap().to_string(), expected, "{text}");
        check("a = 'x' OR b<>2 and NOT c", "a = \"x\" or b != 2 and not c");
        check("((a == true)) and (b or c)", "a = true and (b or c)");
        check("a not in (1, -2.5e1) and b not like \"%\\\"\"", "not a in (1, -25) and not b like \"%\\\"\"");
        check("a is known or b is unknown or c is not null", "a is known or not b is known or c is known");
        check("`a b` and metric.train-loss < 3", "`a b` and metric.train-loss < 3");
        check("not not (a)", "not not a");
    }

    #[test]
    fn errors_have_a_column_and_say_what_was_expected() {
        let check = |text: &str, column: usize, expected: &str| match parse(text).unwrap_err() {
            Error::Query { column: got, reason } => assert!(got == column && reason.contains(expected), "{text}: {got}: {reason}"),
            other => panic!("{other}"),
        };
        check("", 1, "the name of a field");
        check("a = ", 5, "expected a value");
        check("a = b", 5, "\"b\"");
        check("a = 1 b", 7, "`and`, `or` or the end");
        check("é", 1, "`é` has no meaning here");
        check("(a", 3, "`)`");
        check("a in ()", 7, "expected a value");
        check("a like 3", 8, "a pattern");
        check("a like '%a%a%a%a%a%a%a%a%'", 8, "8 `%`");
        check("a = 'x", 5, "closing quote");
        check("a = 1.2.3", 5, "not a number");
        check("a = 1e999", 5, "not a number");
        check("a = 'é' and not in", 17, "the name of a field");
        check("a not 3", 7, "`in` or `like`");
        check("a is 3", 6, "`known`");
        check(&"(".repeat(1000), 49, "deep");
        check(&"not ".repeat(1000), 193, "deep");
        check(&format!("a{}", " and a".repeat(300)), 1537, "256 tests");
        check(&"a".repeat(20_000), 1, "20000 bytes");
    }
}

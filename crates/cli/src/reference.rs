//! `contaccum completions` and `contaccum man`: what can be typed, for shells and for man.

use clap_mangen::Man;
use contaccum_data::nearest;

use crate::args::{self, CompletionsArgs, ManArgs};
use crate::failure::BadUsage;
use crate::output;

const NAME: &str = "contaccum";

/// Writes the script that completes for a shell.
pub fn complete(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), NAME, &mut script);
    output::line(String::from_utf8(script)?.trim_end())
}

/// Writes the page of the program or of one of its commands.
pub fn man(args: &ManArgs) -> anyhow::Result<()> {
    let mut program = args::command().disable_help_subcommand(true);
    program.build();
    let command = match &args.command {
        None => &mut program,
        Some(name) => {
            let names: Vec<String> = program.get_subcommands().map(|one| one.get_name().to_owned()).collect();
            let Some(command) = program.find_subcommand_mut(name) else {
                let near = nearest(name, names.iter().map(String::as_str))
                    .map_or(String::new(), |near| format!(", did you mean {near}?"));
                return Err(BadUsage(format!("no command {name}{near} (see contaccum --help)")).into());
            };
            command
        }
    };
    // A list of all flags would say nothing: they follow.
    let usage = command.render_usage().to_string().replace("Usage: ", "");
    let page = Man::new(command.clone().override_usage(usage));
    let mut text = Vec::new();
    let source = format!("{NAME} {}", env!("CARGO_PKG_VERSION"));
    page.source(source).manual("contaccum manual").render(&mut text)?;
    output::line(String::from_utf8(text)?.trim_end())
}

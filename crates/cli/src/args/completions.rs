//! `contaccum completions`.

use clap::Args;
use clap_complete::Shell;

const AFTER_HELP: &str = "\
Examples:
  Bash, in this shell:
    source <(contaccum completions bash)
  Bash, from the next login on:
    contaccum completions bash > ~/.local/share/bash-completion/completions/contaccum
  zsh, in a folder of $fpath:
    contaccum completions zsh > ~/.zfunc/_contaccum
  fish:
    contaccum completions fish > ~/.config/fish/completions/contaccum.fish
  PowerShell:
    contaccum completions powershell >> $PROFILE";

/// Write what a shell needs to complete commands, flags and their values
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

"""Go's ``text/template`` language, as far as templates of models need it (prompting 2). Pure."""

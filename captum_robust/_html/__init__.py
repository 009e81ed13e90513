"""HTML pages: their blocks, their charts, and the template that writes them."""

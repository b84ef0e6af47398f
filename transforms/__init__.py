"""From files to pictures: reading studies, and making slice sets of them."""

"""Pages of results, one HTML file each, which loads nothing from elsewhere; runs in lists.

    page        the frame of every page: template, style, numbers as text
    pictures    photos as small JPEGs inside the page
    charts      charts as inline SVG
    measured    what the pages say of scored photos: by class, mistakes, calibration
    run_page    the page of a run: `kerasft report`, and a light one at the end of training
    check_page  the page of photos before training: `kerasft check`
    review_page  the page to label new photos: `kerasft review`
    compare_page  the page of a comparison: `kerasft compare`
    runs        the runs in a folder, listed: `kerasft runs`
    diff        what differs between two runs: `kerasft diff`

The templates lie in `templates/`. This package scores nothing and loads no Keras: it is handed
scores, heat maps and neighbours as data (`evaluation/report.py` gathers them). A page is read by
people, so it names commands and their flags, as the library's errors do not.

Names of classes and files come from anywhere, so every template escapes them, and a page's content
security policy lets no other script run than its own.

Shapes: N photos of a split, K classes; scores and logits are float32 [N,K].
"""

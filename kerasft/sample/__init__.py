"""The drawn sample: five kinds of flowers, to try everything out without a download.

scene    a flower before a background, in float coordinates
draw     `draw_sample`: a folder of JPEG files per kind
"""

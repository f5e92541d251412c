"""The drawn sample: five kinds of flowers, to try everything out without a download.

scene    draws a subject in front of a background, in float coordinates
draw     `draw_sample`: draws the flowers, a folder of JPEG files per kind
"""

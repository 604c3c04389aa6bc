"""A cell's every stage as one page of HTML, on which each line shows what it became.

origins        lines of Programs and Schedules -> the equations and declarations behind them
module_lines   the same of a module's text, by the lines that it cites
layered        boxes and arrows -> where they are drawn
cell_drawing   states, gates and weights, and what reads what
step_drawing   kernels, levels and stages
page           all of it, laid out by templates/page
"""

# -*- coding: utf-8 -*-
# binds: a é
a = é = 1
